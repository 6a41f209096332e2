-- For wrk, one connection a thread: sessions of an initialize, a call and a DELETE, one after another.
-- Answers that are no 2xx are counted by wrk itself; `done` prints how many sessions there were.

local body = { "initialize", "tools/call" }
local step, session = 1, nil
local threads = {}
sessions = 0

function setup(thread)
    table.insert(threads, thread)
end

local function post(method)
    local text = '{"jsonrpc":"2.0","id":1,"method":"' .. method .. '","params":{"name":"echo","arguments":{}}}'
    local fields = { ["Content-Type"] = "application/json", ["Accept"] = "application/json, text/event-stream", ["Mcp-Session-Id"] = session }
    return wrk.format("POST", "/mcp", fields, text)
end

function request()
    if step < 3 then
        return post(body[step])
    end
    return wrk.format("DELETE", "/mcp", { ["Mcp-Session-Id"] = session })
end

function response(status, headers)
    if step == 1 then
        session = headers["mcp-session-id"] or headers["Mcp-Session-Id"]
        if session then
            step = 2
        end
    elseif step == 2 then
        step = 3
    else
        step, session, sessions = 1, nil, sessions + 1
    end
end

function done(summary)
    local all = 0
    for _, thread in ipairs(threads) do
        all = all + thread:get("sessions")
    end
    io.write(string.format("figures %d %d %d %d\n", summary.requests, all, summary.errors.status, summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout))
end
