#!/bin/sh
# install.sh [server]: put what was built into DESTDIR/PREFIX; with "server" only what serves. From the environment:
# BUILD, PREFIX, DESTDIR, VERSION.
set -eu

build=${BUILD:-build}
prefix=${PREFIX:-/usr/local}
version=${VERSION:-0}
case $prefix in
/*) ;;
*)
    echo "install.sh: PREFIX is '$prefix', expected an absolute path" >&2
    exit 64
    ;;
esac
# A distribution's package has its configuration in /etc; whoever installs into /usr/local or $HOME has it there.
case $prefix in
/usr) etc=/etc ;;
*) etc=$prefix/etc ;;
esac
root=${DESTDIR:-}$prefix
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

put() { # MODE SOURCE... DIRECTORY
    mode=$1
    shift
    for directory in "$@"; do :; done
    install -d "$directory"
    while [ $# -gt 1 ]; do
        install -m "$mode" "$1" "$directory/"
        shift
    done
}

put 755 "$build/unetserve" "$root/bin"
put 755 "$build/unetserve-gateway" "$build/unetserve-broker" "$build/unetserve-auth" "$build/unetserve-gpu" "$build/unetserve-worker" "$build/unetserve-images.so" "$root/lib/unetserve"
put 755 "$build"/models/*.so "$root/lib/unetserve/models"
[ "${1:-all}" != server ] || exit 0

put 755 "$build/unetctl" "$root/bin"
put 755 "$build/python/unetserve/_worker.abi3.so" "$build/unetserve-images.so" "$root/lib/unetserve/python/unetserve"
put 644 "$build"/python/unetserve/*.py "$root/lib/unetserve/python/unetserve"
put 644 "$build"/python/unetserve/litserve/*.py "$root/lib/unetserve/python/unetserve/litserve"

install -d "$root/lib"
install -m 755 "$build/libunetserve.so" "$root/lib/libunetserve.so.$version"
ln -sf "libunetserve.so.$version" "$root/lib/libunetserve.so.0"
ln -sf libunetserve.so.0 "$root/lib/libunetserve.so"
install -m 644 "$build/libunetserve.a" "$root/lib/libunetserve.a"
for header in client model tensor protocol; do
    put 644 "include/unetserve/$header.h" "$root/include/unetserve"
done
sed -e "s|@PREFIX@|$prefix|" -e "s|@VERSION@|$version|" packaging/unetserve.pc.in >"$work/unetserve.pc"
put 644 "$work/unetserve.pc" "$root/lib/pkgconfig"

for page in docs/man/*.[1-9]; do
    put 644 "$page" "$root/share/man/man${page##*.}"
done
put 644 packaging/models/s2-worldcover/* "$root/share/unetserve/models/s2-worldcover"
# Where they lie in the tree, so that their links hold.
for document in README.md ARCHITECTURE.md CHANGELOG.md CONTRIBUTING.md SECURITY.md LICENSE docs/*.md docs/*.png docs/strategies/*.md; do
    put 644 "$document" "$root/share/doc/unetserve/$(dirname "$document")"
done

# Unit and configuration name the files as they will lie; a configuration that is there stays as it is.
for unit in packaging/systemd/*.service packaging/systemd/*.socket; do
    [ -f "$unit" ] || continue
    sed -e "s|/usr/bin/|$prefix/bin/|g" -e "s|/usr/share/|$prefix/share/|g" -e "s|/etc/unetserve|$etc/unetserve|g" \
        "$unit" >"$work/${unit##*/}"
    put 644 "$work/${unit##*/}" "$root/lib/systemd/system"
done
for file in packaging/systemd/*.conf; do
    [ -f "$file" ] || continue
    target=${DESTDIR:-}$etc/unetserve/${file##*/}
    [ ! -f "$target" ] || continue
    sed -e "s|/usr/share/|$prefix/share/|g" -e "s|/etc/unetserve|$etc/unetserve|g" "$file" >"$work/${file##*/}"
    put 644 "$work/${file##*/}" "${target%/*}"
done
