#!/bin/sh
# The cuDNN backend on the GPUs of this machine: a line a check, what holds (ok), what does not (FAIL), what could not be looked at (skip).
# Run by `make test-gpu` from the top of the tree, which builds all of it. Exit status 0; 1: something does not hold; 77: there is no GPU.
set -u

build=${UNETSERVE_BUILD:-$PWD/build}
python=${PYTHON:-/usr/bin/python3}
logs=${LOGS:-$build/gpu/on_device}
sanitizer=$(command -v compute-sanitizer || command -v "${CUDA:-/usr/local/cuda}/bin/compute-sanitizer")
failed=0
mkdir -p "$logs"

say() { # VERDICT WHAT
    printf '%-5s %s\n' "$1" "$2"
}

# NAME WHAT COMMAND...: one check; what the command says goes into a file.
check() {
    name=$1 what=$2
    shift 2
    if "$@" >"$logs/$name.log" 2>&1; then
        say ok "$what"
    else
        status=$?
        failed=1
        say FAIL "$what: status $status, see $logs/$name.log: $(grep -v '^$' "$logs/$name.log" | tail -n 1 | cut -c 1-160)"
    fi
}

# TOOL WHAT PROGRAM: the program under compute-sanitizer, where that is.
sanitize() {
    if [ -z "$sanitizer" ]; then
        say skip "$2: compute-sanitizer is neither in PATH nor in CUDA's bin"
        return
    fi
    check "$1-$(basename "$3")" "$2" "$sanitizer" --tool "$1" --error-exitcode 9 "$3"
}

# Engines that cuDNN chooses with the device, beside those that it plans from a description of such a device: told, not judged.
engines() {
    props=$1
    "$build/unetctl" plan "$logs/unet.safetensors" --device-props "$props" --json >"$logs/planned.json" 2>/dev/null &&
        "$build/bench/gpu_forward" "$logs/unet.safetensors" --runs 1 --batch 1 --layers >"$logs/layers.json" 2>/dev/null || return 1
    "$python" - "$logs/planned.json" "$logs/layers.json" <<'END'
import json
import sys

planned = [int(layer["engine"]) for layer in json.load(open(sys.argv[1]))["layers"]]
lines = [json.loads(line) for line in open(sys.argv[2])]
chosen = [line["engine"] for line in lines if line["figure"] == "layer" and line["step"] == "conv"]
print(f"{sum(a == b for a, b in zip(planned, chosen))} of {len(planned)} convolutions run on the engine that is planned without a device")
END
}

if ! list=$("$build/unetctl" devices --json 2>&1); then
    echo "test-gpu: there is no GPU here to test on: $list"
    exit 77
fi
if ! printf '%s' "$list" | grep -q '"uuid"'; then
    echo "test-gpu: there is no GPU here to test on: the driver shows none"
    exit 77
fi
"$build/unetctl" devices

check kernels "each of our kernels does what plain loops do" "$build/gpu/test_kernels"
check convs "each convolution does what plain loops do, to the last rounding" "$build/gpu/test_convs"
check networks "made-up networks, sequences of shapes: as the reference backend" "$build/gpu/test_networks"
check backend "networks of every family, batches, types of tiles: as the reference backend; captured and not" "$build/gpu/test_gpu"
check copies "tiles from their slots, labels into theirs, batches in flight" "$build/gpu/test_copies"
check tuning "engines are timed once, kept, and read from then on" "$build/gpu/test_tuning"
check system "servers over HTTP: labels as the reference backend's, figures at /metrics" \
    env UNETSERVE_TEST_DEVICE=here UNETSERVE_BUILD="$build" "$python" -m pytest -q tests/gpu/test_device.py
sanitize memcheck "memcheck: our kernels touch no memory that is not theirs" "$build/gpu/test_kernels"
sanitize racecheck "racecheck: no races within our kernels" "$build/gpu/test_kernels"
sanitize synccheck "synccheck: no wrong barriers within our kernels" "$build/gpu/test_kernels"
sanitize initcheck "initcheck: our kernels read nothing that nobody wrote" "$build/gpu/test_kernels"
for tool in memcheck initcheck; do
    sanitize $tool "$tool: whole networks" "$build/gpu/test_gpu"
    sanitize $tool "$tool: copies beside them, batches in flight" "$build/gpu/test_copies"
    sanitize $tool "$tool: engines that are timed" "$build/gpu/test_tuning"
done

name=$(printf '%s' "$list" | sed 's/.*"name":"\([^"]*\)".*/\1/')
case $name in
*H100*) props=h100 ;; *A100*) props=a100 ;; *B200*) props=b200 ;; *4090*) props=rtx4090 ;; *T4*) props=t4 ;; *) props= ;;
esac
if [ -z "$props" ]; then
    say skip "engines as planned: tests/gpu/devices has no description of $name"
elif ! "$python" bench/random_unet.py "$logs/unet.safetensors" --base "${BASE:-64}" || ! told=$(engines "tests/gpu/devices/$props.json"); then
    say FAIL "engines as planned: could not be compared"
    failed=1
else
    say told "$told"
fi
exit $failed
