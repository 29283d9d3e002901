#!/bin/sh
# run.sh PROGRAMS_DIR SECONDS TARGET...: fuzz each target for that long on a scratch copy of its corpus.
# New findings (crash-*, oom-*, timeout-*) stay in PROGRAMS_DIR and fail the run.
set -eu
programs=$1 seconds=$2
shift 2
for target in "$@"; do
    work=$programs/work-$target
    mkdir -p "$work"
    echo "== $target, $seconds s"
    "$programs/$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
        -artifact_prefix="$programs/" "$work" "tests/fuzz/corpus/$target" 2>"$programs/$target.log" || {
        tail -n 40 "$programs/$target.log" >&2
        exit 1
    }
    grep -E 'stat::number_of_executed_units|DONE' "$programs/$target.log" || true
done
