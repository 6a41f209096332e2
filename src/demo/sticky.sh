#!/bin/sh
# Opens four sessions through the edge and calls each one three times:
# a session must name one replica and count 1, 2, 3.
# Usage: sh sticky.sh URL CERTIFICATE
set -eu
url=$1 cert=$2

post() {
    curl -sS --cacert "$cert" "$url" \
        -H 'content-type: application/json' \
        -H 'accept: application/json, text/event-stream' "$@"
}
call() {
    post -H "mcp-session-id: $id" -H 'mcp-protocol-version: 2025-11-25' -d \
        "{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"tools/call\",\"params\":{\"name\":\"$1\",\"arguments\":{}}}" |
        sed -n 's/.*"text":"\([^"]*\)".*/\1/p'
}

failed=0
for session in 1 2 3 4; do
    id=$(post -D - -o /dev/null -d '{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"sticky.sh","version":"1"}}}' |
        tr -d '\r' | sed -n 's/^[Mm][Cc][Pp]-[Ss][Ee][Ss][Ss][Ii][Oo][Nn]-[Ii][Dd]: //p')
    [ -n "$id" ] || { echo "no session id came back" >&2; exit 1; }
    post -H "mcp-session-id: $id" -H 'mcp-protocol-version: 2025-11-25' \
        -d '{"jsonrpc":"2.0","method":"notifications/initialized"}'
    seen=
    for _ in 1 2 3; do
        seen="$seen $(call whoami):$(call count)"
    done
    echo "session $session:$seen"
    case $seen in
    " a:1 a:2 a:3" | " b:1 b:2 b:3") ;;
    *) failed=1 ;;
    esac
    post -X DELETE -H "mcp-session-id: $id" -H 'mcp-protocol-version: 2025-11-25' -o /dev/null
done
[ "$failed" = 0 ] || { echo "a session changed its replica" >&2; exit 1; }
