#!/bin/sh
# Runs each fuzz target, or the one that is named, for so many seconds. Fails on the first crash.
# Usage: tests/fuzz/run.sh SECONDS [TARGET]
set -eu
version=0.13.2
cd "$(dirname "$0")/../.."
seconds=${1:?usage: $0 SECONDS [TARGET]}
targets=${2:-$(sed -n 's/^name = "\(.*\)"$/\1/p' tests/fuzz/Cargo.toml | grep -v '^mcp-edge-fuzz$')}

cargo fuzz --version 2>/dev/null | grep -q " $version\$" || cargo install --locked cargo-fuzz --version "$version"

# The stable compiler has no sanitizers, and needs none here: there is no unsafe code of ours. The
# engine's coverage instrumentation is stable, so cargo-fuzz only has to be told not to ask for more.
ran=0
for target in $targets; do
    echo "== $target for $seconds s"
    # New inputs go to a folder that is not kept; the committed ones are read as well.
    found=tests/fuzz/target/found/$target
    mkdir -p "$found"
    cargo fuzz run --fuzz-dir tests/fuzz --sanitizer none "$target" "$found" "tests/fuzz/corpus/$target" -- \
        -max_total_time="$seconds" -max_len=32768 -timeout=5 -rss_limit_mb=1024 -print_final_stats=1
    ran=$((ran + 1))
done
echo "$ran passed, 0 failed"
