#!/bin/sh
# Runs each unit test program given; every one prints cmocka's own lines. Fails if any fails, after running all.
# EMULATOR: words to put before each, such as an emulated processor.
failed=
for program in "$@"; do
    echo "== ${program##*/}"
    # shellcheck disable=SC2086
    ${EMULATOR:-} "$program" || failed="$failed ${program##*/}"
done
if [ -n "$failed" ]; then
    echo "unit tests failed:$failed" >&2
    exit 1
fi
