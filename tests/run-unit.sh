#!/bin/sh
# Runs the unit test programs given, JOBS at a time (as many as there are cores); every one prints cmocka's own lines, when it has
# ended. Fails if any fails, after running all; the last line says which. EMULATOR: words to put before each, such as an
# emulated processor.
set -eu

if [ "${1:-}" = --one ]; then
    name=${3##*/}
    # shellcheck disable=SC2086
    ${EMULATOR:-} "$3" >"$2/$name" 2>&1 || : >"$2/$name.failed"
    # One at a time, so that no two mix their lines.
    # shellcheck disable=SC2016
    exec flock "$2" sh -c 'echo "== $1" && cat "$2"' - "$name" "$2/$name"
fi

logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
printf '%s\n' "$@" | xargs -P "${JOBS:-$(nproc)}" -n 1 "$0" --one "$logs"
failed=
for program in "$@"; do
    test ! -e "$logs/${program##*/}.failed" || failed="$failed ${program##*/}"
done
if [ -n "$failed" ]; then
    echo "unit tests failed:$failed" >&2
    exit 1
fi
