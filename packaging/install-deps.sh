#!/bin/sh
# install-deps.sh GROUP...: make sure that the Debian packages of these groups are there (server, build, test, lint, bench, container, browser, model, wheel, counts).
# Installs what is missing when it may; else says in one line what to run.
set -eu

packages_server="gcc make libc6-dev libzmq3-dev libmsgpack-dev libmicrohttpd-dev libgnutls28-dev libjansson-dev libsystemd-dev libseccomp-dev libinih-dev
 libdnnl-dev libzip-dev libpng-dev libtiff-dev libxxhash-dev zlib1g-dev libzstd-dev libcjose-dev libssl-dev libcurl4-openssl-dev"
packages_build="$packages_server python3-dev curl libgdal-dev"
packages_test="libcmocka-dev python3 python3-wheel python3-pip python3-pytest python3-pytest-xdist python3-requests python3-httpx python3-numpy python3-zmq python3-msgpack python3-yaml python3-jwt python3-cryptography python3-venv curl gdal-bin qemu-user zstd"
packages_lint="clang clang-tidy clang-format cppcheck shellcheck libclang-rt-14-dev mandoc"
packages_bench="python3 python3-numpy python3-venv python3-pip g++"
packages_container="buildah debootstrap"
packages_browser="chromium chromium-driver"
packages_model="spin python3"
packages_wheel="python3-dev python3-wheel"
packages_counts="valgrind python3"

wanted=
for group in "$@"; do
    case $group in
    server) wanted="$wanted $packages_server" ;;
    build) wanted="$wanted $packages_build" ;;
    test) wanted="$wanted $packages_test" ;;
    lint) wanted="$wanted $packages_lint" ;;
    bench) wanted="$wanted $packages_bench" ;;
    container) wanted="$wanted $packages_container" ;;
    browser) wanted="$wanted $packages_browser" ;;
    model) wanted="$wanted $packages_model" ;;
    wheel) wanted="$wanted $packages_wheel" ;;
    counts) wanted="$wanted $packages_counts" ;;
    *)
        echo "install-deps.sh: no group '$group'" >&2
        exit 64
        ;;
    esac
done

# Not a Debian machine: the compiler will say what it misses.
command -v dpkg-query >/dev/null 2>&1 || exit 0

missing=
for package in $wanted; do
    status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$status" = installed ] || missing="$missing $package"
done
[ -z "$missing" ] && exit 0

sudo=
if [ "$(id -u)" != 0 ]; then
    if command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
        sudo=sudo
    else
        echo "unetserve: missing packages; install them as root with: apt-get install --no-install-recommends$missing" >&2
        exit 1
    fi
fi
echo "unetserve: installing$missing"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# shellcheck disable=SC2086
if ! { $sudo apt-get update -qq && $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing; } >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    echo "unetserve: could not install; try: ${sudo:+sudo }apt-get install$missing" >&2
    exit 1
fi
