#!/bin/sh
# run.sh PROGRAMS_DIR SECONDS JOBS TARGET...: fuzz each target for that long on a scratch copy of its corpus, JOBS of them at
# a time; with tests/fuzz/TARGET.dict where there is one. Findings stay in PROGRAMS_DIR (TARGET-crash-*, -oom-*, -timeout-*,
# -leak-*) and fail the run, whose last lines say which they are, in base64 where they are short enough to copy.
set -eu
programs=$1 seconds=$2 jobs=$3
shift 3

# What a target has found in this run, one line each.
tell() {
    printf '== fuzz target %s failed\n' "$1"
    for found in "$programs/$1"-crash-* "$programs/$1"-oom-* "$programs/$1"-timeout-* "$programs/$1"-leak-*; do
        test -n "$(find "$found" -newer "$programs/$1.begun" 2>/dev/null)" || continue
        size=$(wc -c <"$found")
        text=$(test "$size" -gt 8192 || base64 -w 0 "$found")
        printf '   %s, %s bytes, base64: %s\n' "$found" "$size" "${text:-(too long)}"
    done
}

if [ "$jobs" != one ]; then
    for target in "$@"; do rm -f "$programs/$target.failed"; done
    printf '%s\n' "$@" | xargs -P "$jobs" -n 1 "$0" "$programs" "$seconds" one && exit
    for target in "$@"; do
        test ! -e "$programs/$target.failed" || tell "$target" >&2
    done
    exit 1
fi

target=$1
work=$programs/work-$target
dictionary=tests/fuzz/$target.dict
mkdir -p "$work"
touch "$programs/$target.begun"
"$programs/$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
    ${dictionary:+$(test -f "$dictionary" && echo "-dict=$dictionary")} \
    -artifact_prefix="$programs/$target-" "$work" "tests/fuzz/corpus/$target" 2>"$programs/$target.log" || {
    echo "== $target" >&2
    tail -n 40 "$programs/$target.log" >&2
    touch "$programs/$target.failed"
    exit 1
}
echo "== $target, $seconds s: $(grep -E 'stat::number_of_executed_units' "$programs/$target.log" || true)"
