#!/usr/bin/env bash
# In: names of steps, none = all. Out: their output, a table, and `N passed, N failed` over all suites.
# A step without a suite of its own (fmt, lint …) counts as one test. A suite that ran no test fails.
set -uo pipefail
cd "$(dirname "$0")/.."

target=${CARGO_TARGET_DIR:-target}
logs=$target/test-logs
export MCP_EDGE=${MCP_EDGE:-$(realpath -m "$target/debug/mcp-edge")}
# suites that must have run when `cargo test` did
suites=(src/lib.rs tests/architecture.rs tests/config.rs tests/corpus.rs tests/e2e/main.rs tests/import.rs)

passed=0 failed=0 table=()

row() { # name, result, passed, failed, seconds
    table+=("$(printf '%-28s %-8s %7s %7s %8s' "$1" "$2" "$3" "$4" "$5")")
    passed=$((passed + $3)) failed=$((failed + $4))
}

# Runs a command, its output shown and kept in $log; sets $status and $took.
run() { # name, command...
    local name=$1 start=$SECONDS
    shift
    log=$logs/$name.log
    printf '\n=== %s: %s\n' "$name" "$*"
    "$@" 2>&1 | tee "$log"
    status=${PIPESTATUS[0]}
    took=$((SECONDS - start))s
}

# A step that passes or fails as one.
step() { # name, command...
    run "$@"
    if [ "$status" = 0 ]; then row "$1" ok 1 0 "$took"; else row "$1" FAILED 0 1 "$took"; fi
}

# A script that ends with a summary like `12 passed, 1 failed` (pytest's order and words will do).
counted() { # name, command...
    run "$@"
    local summary
    summary=$(grep -E '[0-9]+ (passed|failed|errors?)' "$log" | tail -n 1)
    verdict "$1" "$status" "$(count passed)" "$(($(count failed) + $(count 'errors?')))" "$took"
}

count() { # word; reads $summary
    local number
    number=$(grep -oE "[0-9]+ $1" <<<"$summary" | head -n 1)
    echo "${number%% *}" | grep . || echo 0
}

verdict() { # name, exit status, passed, failed, time
    if [ "$3" = 0 ] && [ "$4" = 0 ]; then
        row "$1" "NO TEST" 0 1 "$5"
    elif [ "$2" != 0 ] && [ "$4" = 0 ]; then
        row "$1" FAILED "$3" 1 "$5"
    elif [ "$4" != 0 ]; then
        row "$1" FAILED "$3" "$4" "$5"
    else
        row "$1" ok "$3" 0 "$5"
    fi
}

# One row per test binary, from cargo's own words: `Running tests/x.rs (…)` and `test result: …`.
cargo_tests() {
    run test env CARGO_TERM_COLOR=never cargo test --locked --no-fail-fast
    local found suite pass fail seconds known=" "
    found=$(awk '
        /^ *Running / { suite = ($2 == "unittests") ? $3 : $2 }
        /^ *Doc-tests / { suite = "doc-tests" }
        /^test result: / { print suite, $4, $6, $NF }' "$log")
    while read -r suite pass fail seconds; do
        [ -n "$suite" ] || continue
        known+="$suite "
        case $suite,$pass,$fail in
        src/main.rs,0,0 | doc-tests,0,0) ;; # may be empty
        *) verdict "$suite" 0 "$pass" "$fail" "${seconds:-}" ;;
        esac
    done <<<"$found"
    for suite in "${suites[@]}"; do
        [[ $known == *" $suite "* ]] || row "$suite" "NO TEST" 0 1 ""
    done
    # it broke off without saying so in a result line
    if [ "$status" != 0 ] && ! grep -q '^test result: FAILED' "$log"; then
        row "cargo test" FAILED 0 1 "$took"
    else
        row "cargo test (build, all)" "" 0 0 "$took"
    fi
}

fuzz() {
    if cargo fuzz --version >/dev/null 2>&1; then
        counted fuzz tests/fuzz/run.sh 10
    else
        row fuzz skipped 0 0 "no cargo-fuzz"
    fi
}

mkdir -p "$logs"
for name in ${*:-fmt lint doc deny test peers fuzz}; do
    case $name in
    fmt) step fmt cargo fmt --check ;;
    lint) step lint cargo clippy --locked --all-targets -- -D warnings ;;
    doc) step doc env RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --lib ;;
    deny) step deny "${CARGO_DENY:-target/tools/bin/cargo-deny}" --config .deny.toml --locked check bans licenses sources ;;
    test) cargo_tests ;;
    peers)
        step build cargo build --locked --bin mcp-edge
        counted peers tests/peers/run.sh "$MCP_EDGE"
        ;;
    fuzz) fuzz ;;
    *) echo "unknown step $name" >&2 && exit 2 ;;
    esac
done

printf '\n%-28s %-8s %7s %7s %8s\n' step result passed failed time
printf '%s\n' "${table[@]}"
printf '\n%s passed, %s failed\n' "$passed" "$failed"
[ "$failed" = 0 ] && [ "$passed" != 0 ]
