#!/bin/sh
# Runs the tests of whole systems: run-system.sh CACHE JOBS PYTEST-ARGUMENTS... CACHE: a directory of its own, emptied here.
# JOBS: how many run at a time, where pytest-xdist is.
#
# What fails beside other tests is run once more, alone, if it is little: hundreds of processes are started and killed on a
# machine that does much else, and one test in thousands may still wait for something that another one keeps from coming. A test
# that fails twice has failed. One that fails once is named in the last line, for somebody to look into: it or the server is wrong.
set -eu

RETRIED_AT_MOST=3
cache=$1
jobs=$2
shift 2
python=${PYTHON:-python3}
"$python" -c 'import xdist' 2>/dev/null || jobs=

run() {
    jobs=${jobs:+$1}
    shift
    "$python" -m pytest -q -o cache_dir="$cache" ${jobs:+-n "$jobs"} "$@"
}

rm -rf "$cache"
status=0
run "$jobs" "$@" || status=$?
failed=$cache/v/cache/lastfailed
[ "$status" = 1 ] && [ -e "$failed" ] || exit "$status"  # 1: tests have failed, and nothing else
names=$(sed -n 's/^  "\(.*\)": true,\{0,1\}$/\1/p' "$failed")
count=$(printf '%s\n' "$names" | wc -l)
[ "$count" -le "$RETRIED_AT_MOST" ] || exit "$status"

printf '\nrun again, alone:\n%s\n' "$names"
run 0 "$@" --last-failed --last-failed-no-failures none
printf '\nFLAKY, failed beside other tests and passed alone: %s\n' "$(printf '%s' "$names" | tr '\n' ' ')"
