#!/bin/sh
# run.sh PROGRAMS_DIR SECONDS JOBS TARGET...: fuzz each target for that long on a scratch copy of its corpus, JOBS of them at
# a time; with tests/fuzz/TARGET.dict where there is one. New findings (crash-*, oom-*, timeout-*) stay in PROGRAMS_DIR
# and fail the run.
set -eu
programs=$1 seconds=$2 jobs=$3
shift 3

if [ "$jobs" != one ]; then
    printf '%s\n' "$@" | xargs -P "$jobs" -n 1 "$0" "$programs" "$seconds" one
    exit
fi

target=$1
work=$programs/work-$target
dictionary=tests/fuzz/$target.dict
mkdir -p "$work"
"$programs/$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
    ${dictionary:+$(test -f "$dictionary" && echo "-dict=$dictionary")} \
    -artifact_prefix="$programs/" "$work" "tests/fuzz/corpus/$target" 2>"$programs/$target.log" || {
    echo "== $target" >&2
    tail -n 40 "$programs/$target.log" >&2
    exit 1
}
echo "== $target, $seconds s: $(grep -E 'stat::number_of_executed_units' "$programs/$target.log" || true)"
