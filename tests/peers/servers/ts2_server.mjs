// In: options (pages: lists by threes). Out: a server of TypeScript SDK 2.x on a free port which serves both eras through createMcpHandler:
// 2026-07-28 as it is, older revisions without sessions. Run it with --require ./loopback.cjs.
import { createServer } from 'node:http';
import { localhostHostValidation, localhostOriginValidation, toNodeHandler } from '@modelcontextprotocol/node';
import { createMcpHandler, McpServer } from '@modelcontextprotocol/server';
import { z } from 'zod';
import { page, tools } from './ts_tools.mjs';

const adapter = {
    progress: (context, progress, total) =>
        context.mcpReq._meta?.progressToken === undefined
            ? undefined
            : context.mcpReq.notify({
                  method: 'notifications/progress',
                  params: { progressToken: context.mcpReq._meta.progressToken, progress, total }
              }),
    session: () => null,
    headers: context => Object.fromEntries(context.http?.req?.headers ?? []),
    touch: () => handler.notify.toolsChanged()
};

const handler = createMcpHandler(() => {
    const mcp = new McpServer({ name: 'peers-ts2', version: '1.0.0' }, { capabilities: { tools: { listChanged: true } } });
    for (const [name, [shape, run]] of Object.entries(tools(adapter))) {
        mcp.registerTool(name, { description: name, inputSchema: z.object(shape) }, run);
    }
    if (process.argv.includes('pages')) {
        // such a list is the same for everybody, says the server; an edge that filters it knows better
        const shared = { ttlMs: 60_000, cacheScope: 'public' };
        mcp.server.setRequestHandler('tools/list', ({ params }) => ({ ...page(tools(adapter), params?.cursor), ...shared }));
    }
    return mcp;
});

const serve = toNodeHandler(handler);
const hostIsLocal = localhostHostValidation();
const originIsLocal = localhostOriginValidation();
createServer((request, response) => {
    if (!hostIsLocal(request, response) || !originIsLocal(request, response)) return;
    if (request.url.split('?')[0] !== '/mcp') return response.writeHead(404).end();
    serve(request, response);
}).listen(0);
