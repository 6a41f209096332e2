#!/usr/bin/env bash
# In: nothing (needs valgrind). Out: instructions per run of each hot piece: what one more run costs, so
# that the start of the program and the making of the inputs do not count. The same on every machine with
# the same compiler, within a per mille.
set -euo pipefail
cd "$(dirname "$0")/.."

command -v valgrind >/dev/null || { echo "valgrind is missing: apt-get install valgrind" >&2; exit 1; }
cargo build --release --locked --quiet --example pieces
program=${CARGO_TARGET_DIR:-target}/release/examples/pieces
few=100 many=1100

count() { # piece, times
    valgrind --tool=callgrind --callgrind-out-file=/dev/null "$program" "$1" "$2" 2>&1 |
        sed -n 's/.*Collected : \([0-9]*\).*/\1/p'
}

mapfile -t names < <("$program" list)
printf '%-32s %12s\n' piece instructions
for i in "${!names[@]}"; do
    printf '%-32s %12d\n' "${names[$i]}" $((($(count "$i" $many) - $(count "$i" $few)) / (many - few)))
done
