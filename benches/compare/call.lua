-- In: MCP_BODY (a file) and MCP_SESSIONS (a file with one session id per line); out: POSTs for wrk that
-- carry the sessions in turn. All requests are made before the run.
local requests, at = {}, 0

function init(args)
    local file = assert(io.open(os.getenv("MCP_BODY")))
    local body = file:read("*a")
    file:close()
    for id in io.lines(os.getenv("MCP_SESSIONS")) do
        requests[#requests + 1] = wrk.format("POST", nil, {
            ["Host"] = wrk.host .. ":" .. wrk.port,
            ["Content-Type"] = "application/json",
            ["Accept"] = "application/json, text/event-stream",
            ["Mcp-Protocol-Version"] = "2025-06-18",
            ["Mcp-Session-Id"] = id,
        }, body)
    end
end

function request()
    at = at % #requests + 1
    return requests[at]
end
