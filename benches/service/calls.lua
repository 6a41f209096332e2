-- For wrk: calls of a tool without a session.

wrk.method = "POST"
wrk.path = "/mcp"
wrk.body = '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{}}}'
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Accept"] = "application/json, text/event-stream"

function done(summary)
    local errors = summary.errors
    io.write(string.format("figures %d 0 %d %d\n", summary.requests, errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
