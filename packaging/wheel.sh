#!/bin/sh
# wheel.sh: put the built Python package into a wheel. From the environment: BUILD, VERSION, PYTHON.
set -eu

root=$BUILD/wheel/root
info=$root/unetserve-$VERSION.dist-info
rm -rf "$BUILD/wheel"
mkdir -p "$root/unetserve/litserve" "$info"
cp "$BUILD"/python/unetserve/*.py "$BUILD"/python/unetserve/*.so "$root/unetserve/"
cp "$BUILD"/python/unetserve/litserve/*.py "$root/unetserve/litserve/"
strip --strip-debug "$root"/unetserve/*.so
cat >"$info/METADATA" <<EOF
Metadata-Version: 2.1
Name: unetserve
Version: $VERSION
Summary: LitServe's classes on unetserve, a model server in C
License: Apache-2.0
Requires-Python: >=3.9
EOF
cat >"$info/WHEEL" <<EOF
Wheel-Version: 1.0
Generator: unetserve
Root-Is-Purelib: false
Tag: cp39-abi3-linux_x86_64
EOF
"$PYTHON" -m wheel pack --dest-dir "$BUILD/wheel" "$root" >/dev/null
