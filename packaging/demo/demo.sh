#!/bin/sh
# demo.sh: start unetserve with the demonstration model on a free loopback port, send it one tile over HTTP, draw what it
# answers, stop it. BUILD: the build directory. TILE: a raster of the model's 12 bands; without it a scene is invented.
# OFFSET: is added to TILE's numbers first (-1000 for Sentinel-2's processing baseline 04.00).
set -eu

build=${BUILD:-build}
tile=${TILE:-}
offset=${OFFSET:-0}
model=packaging/models/s2-worldcover
spectra=tests/goldens/spectra.json
work=$build/demo
server=

stop_server() {
    [ -n "$server" ] || return 0
    kill -TERM "$server" 2>/dev/null || true
    # It drains and goes; what does not go within 30 s is told so more firmly.
    tries=0
    while kill -0 "$server" 2>/dev/null && [ "$tries" -lt 300 ]; do
        sleep 0.1
        tries=$((tries + 1))
    done
    kill -KILL "$server" 2>/dev/null || true
    wait "$server" 2>/dev/null || true
    server=
}

fail() {
    echo "demo: $1" >&2
    exit 1
}

trap stop_server EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

start_server() {
    : >"$work/server.out"
    "$build/unetserve" --model "land-cover=$model" --listen 127.0.0.1:0 >"$work/server.out" 2>"$work/server.log" &
    server=$!
    tries=0
    while ! grep -q 'ready on' "$work/server.out"; do
        kill -0 "$server" 2>/dev/null || {
            tail -n 20 "$work/server.log" >&2
            fail "unetserve ended before it was ready; its log is above"
        }
        [ "$tries" -lt 600 ] || fail "unetserve was not ready within 60 s; see $work/server.log"
        sleep 0.1
        tries=$((tries + 1))
    done
    url=$(sed -n 's/.*ready on \(http[^ ]*\).*/\1/p' "$work/server.out" | head -n 1)
    [ -n "$url" ] || fail "unetserve did not say where it listens"
}

# ask ACCEPT FILE: send tile.npy, save the answer. Its headers stay in headers.txt.
ask() {
    code=$(curl -sS --max-time 60 -o "$2" -D "$work/headers.txt" -w '%{http_code}' \
        -H 'Content-Type: application/x-npy' -H "Accept: $1" --data-binary "@$work/tile.npy" "$url/predict") ||
        fail "no answer from $url"
    [ "$code" = 200 ] || {
        cat "$2" >&2
        fail "unetserve answered $code"
    }
}

print_times() {
    sed -n 's/^[Ss]erver-[Tt]iming: *//p' "$work/headers.txt" | tr -d '\r' | tr ',' '\n' |
        sed 's/^ *\([a-z]*\);dur=\(.*\)$/  \1 \2 ms/'
}

demo_scene() {
    "$work/make-scene" "$spectra" "$work/tile.npy" "$work/truth.npy"
    echo "An invented scene of 12 bands, 256 x 256, goes to $url/predict"
    if command -v curl >/dev/null 2>&1; then
        # The first request warms caches up; the second one's times are shown.
        ask image/png "$work/labels.png"
        ask application/x-npy "$work/labels.npy"
        echo "Where the time went:"
        print_times
    else
        "$build/unetctl" predict "$work/tile.npy" --url "$url" -o "$work/labels.npy"
        "$build/unetctl" predict "$work/tile.npy" --url "$url" -o "$work/labels.png" >/dev/null
    fi
    # Two .npy files of equal shape and type differ in their labels only, a byte a pixel.
    wrong=$(cmp -l "$work/truth.npy" "$work/labels.npy" | wc -l)
    permille=$(((65536 - wrong) * 1000 / 65536))
    echo "Agreement with the scene's truth: $((permille / 10)).$((permille % 10)) % of the pixels"
}

demo_tile() {
    [ -r "$tile" ] || fail "cannot read '$tile'"
    "$build/unetctl" check "$tile"
    echo "It goes to $url/predict"
    "$build/unetctl" predict "$tile" --url "$url" --offset "$offset" --window 0 -o "$work/labels.png" \
        --sent "$work/tile.npy" | tail -n 1
}

mkdir -p "$work"
start_server
if [ -n "$tile" ]; then
    demo_tile
else
    demo_scene
fi
echo "What it saw (WorldCover code, class, share):"
"$work/make-picture" "$work/tile.npy" "$work/labels.png" "$work/mask.png"
stop_server
echo "The picture is $work/mask.png; labels alone are in $work/labels.png"
