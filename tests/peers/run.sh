#!/bin/sh
# In: the path of the mcp-edge binary (default: target/debug/mcp-edge of this checkout), then arguments for pytest.
# Out: pytest's summary and exit code; a run that selected no test fails (exit code 5).
set -eu
cd "$(dirname "$0")"
binary=../../target/debug/mcp-edge
case "${1:-}" in
    "" | -*) ;;
    *)
        binary=$1
        shift
        ;;
esac
# The path may be relative to the caller's directory.
case "$binary" in
    /*) ;;
    ../../*) binary=$(pwd)/$binary ;;
    *) binary=$OLDPWD/$binary ;;
esac
[ -x "$binary" ] || {
    echo "no mcp-edge binary at $binary: build it first, or give its path" >&2
    exit 1
}
./setup.sh
MCP_EDGE=$binary exec .cache/venv-test/bin/python -m pytest "$@"
