#!/bin/sh
# Every linter over every tracked source; fails if any has a finding. Run by `make lint` from the top of the tree.
set -eu

sources=$(git ls-files '*.c')
headers=$(git ls-files '*.h')
failed=

# The cuDNN backend's sources need the toolkit's headers, as its build does.
cuda=${CUDA:-/usr/local/cuda}
cuda_flags="-DUNETSERVE_CUDNN -isystem $cuda/include -DGPU_IMAGE_FILE='\"/dev/null\"'"
if ! [ -e "$cuda/include/cudnn.h" ]; then
    cuda_flags=
    sources=$(git ls-files '*.c' ':!workers/backends/cudnn/*' ':!tests/gpu/*' ':!tests/unit/test_gpu_*')
fi

step() {
    name=$1
    shift
    echo "== $name"
    "$@" || failed="$failed $name"
}

# Two files count in _Float16, which clang 14 has on newer processors only.
tidy() {
    flags="-std=c11 -D_GNU_SOURCE -Iinclude -I. -I/usr/include/gdal $(printf -- '-I%s ' /usr/include/python3.*) -DPy_LIMITED_API=0x03090000 -DUNETSERVE_VERSION='\"0\"' -DUNETSERVE_PREFIX='\"/usr\"' $cuda_flags"
    # shellcheck disable=SC2086
    printf '%s\n' $sources | grep -vE '^tests/gpu/double/(fake_cudnn|device_half).c$' | xargs -P 2 -n 1 sh -c "clang-tidy --quiet \"\$@\" -- $flags 2>/dev/null" tidy
}

check() {
    # shellcheck disable=SC2086
    cppcheck --quiet --std=c11 --language=c -D_GNU_SOURCE -D__x86_64__ -Iinclude -I. --enable=warning,performance,portability \
        --inline-suppr --suppress=missingIncludeSystem --suppress=normalCheckLevelMaxBranches --error-exitcode=1 -j 2 $sources
}

# One build serves every processor: no flags for this one's, and code for newer ones only in files that are chosen at run time.
portable() {
    ! git grep -nE -e '-m(arch|tune|cpu)=|-m(avx|sse|fma|bmi|amx|f16c)' -- Makefile .ci packaging bench ':!packaging/lint.sh' &&
        ! git grep -nE '\btarget\("|pragma GCC target' -- '*.c' '*.h' ':!workers/backends/onednn/onednn_rows_*' ':!workers/backends/onednn/onednn_winograd_*' ':!workers/backends/amx/amx_hardware.c' ':!lib/json_rows_*' ':!bench/peak_*'
}

# shellcheck disable=SC2086
step clang-format clang-format --dry-run --Werror $sources $headers
step clang-tidy tidy
step cppcheck check
step portable portable
# shellcheck disable=SC2046
step shellcheck shellcheck $(git grep -lE '^#!.*\b(ba)?sh\b')
step python env PYTHONPYCACHEPREFIX=build/pycache "${PYTHON:-/usr/bin/python3}" -m compileall -q tests bench python
if [ -d docs/man ]; then
    # shellcheck disable=SC2046
    step mandoc mandoc -T lint -W warning $(git ls-files 'docs/man/*')
fi

if [ -n "$failed" ]; then
    echo "lint: findings in$failed" >&2
    exit 1
fi
echo "lint: clean"
