// In: a mode (http | sse) and options (pages: lists by threes; json: answers without streams; keeps: sessions cannot be ended). Out: a sessionful server of
// TypeScript SDK 1.x on a free port: one transport per session in a map, the idiom of that SDK's examples. Run it with
// --require ./loopback.cjs.
import { randomUUID } from 'node:crypto';
import express from 'express';
import { McpServer } from '@modelcontextprotocol/sdk/server/mcp.js';
import { SSEServerTransport } from '@modelcontextprotocol/sdk/server/sse.js';
import { StreamableHTTPServerTransport } from '@modelcontextprotocol/sdk/server/streamableHttp.js';
import { isInitializeRequest, ListToolsRequestSchema } from '@modelcontextprotocol/sdk/types.js';
import { page, tools } from './ts_tools.mjs';

const [mode, ...options] = process.argv.slice(2);
const app = express();
const transports = new Map();

function server() {
    const mcp = new McpServer({ name: 'peers-ts1', version: '1.0.0' }, { capabilities: { tools: { listChanged: true } } });
    const adapter = {
        progress: (extra, progress, total) =>
            extra._meta?.progressToken === undefined
                ? undefined
                : extra.sendNotification({
                      method: 'notifications/progress',
                      params: { progressToken: extra._meta.progressToken, progress, total }
                  }),
        session: extra => extra.sessionId,
        headers: extra => extra.requestInfo?.headers,
        touch: () => mcp.server.sendToolListChanged()
    };
    for (const [name, [inputSchema, handler]] of Object.entries(tools(adapter))) {
        mcp.registerTool(name, { description: name, inputSchema }, handler);
    }
    if (options.includes('pages')) {
        mcp.server.setRequestHandler(ListToolsRequestSchema, ({ params }) => page(tools(adapter), params?.cursor));
    }
    return mcp;
}

function streamableHttp() {
    app.use(express.json({ limit: '4mb' }));
    app.get('/peers/sessions', (_, response) => void response.json(transports.size));
    app.all('/mcp', async (request, response) => {
        if (options.includes('keeps') && request.method === 'DELETE') return response.status(405).end();
        const id = request.headers['mcp-session-id'];
        let transport = transports.get(id);
        if (!transport && !id && request.method === 'POST' && isInitializeRequest(request.body)) {
            transport = new StreamableHTTPServerTransport({
                sessionIdGenerator: () => randomUUID(),
                enableJsonResponse: options.includes('json'),
                onsessioninitialized: created => void transports.set(created, transport)
            });
            transport.onclose = () => transports.delete(transport.sessionId);
            await server().connect(transport);
        }
        if (!transport) {
            const [status, message] = id ? [404, 'Session not found'] : [400, 'Bad Request: No valid session ID provided'];
            return response.status(status).json({ jsonrpc: '2.0', error: { code: -32000, message }, id: null });
        }
        await transport.handleRequest(request, response, request.body);
    });
}

function sse() {
    app.get('/sse', async (request, response) => {
        const transport = new SSEServerTransport('/messages', response);
        transports.set(transport.sessionId, transport);
        response.on('close', () => transports.delete(transport.sessionId));
        await server().connect(transport);
    });
    app.post('/messages', async (request, response) => {
        const transport = transports.get(request.query.sessionId);
        if (!transport) return response.status(400).send('No transport found for sessionId');
        await transport.handlePostMessage(request, response);
    });
}

mode === 'sse' ? sse() : streamableHttp();
app.listen(0);
