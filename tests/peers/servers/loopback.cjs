// In: a Node program that listens on all addresses, or logs nothing. Out: the same program, unmodified, on 127.0.0.1.
// Preloaded with --require. Prints {"port", "pid"} once bound, and writes one JSON line per request to $PEERS_LOG.
'use strict';
const fs = require('node:fs');
const http = require('node:http');
const net = require('node:net');

const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (port, ...rest) {
    const done = rest.filter(argument => typeof argument === 'function');
    this.once('listening', () => console.log(JSON.stringify({ port: this.address().port, pid: process.pid })));
    return listen.call(this, { port: Number(port), host: '127.0.0.1', backlog: 512 }, ...done);
};

const emit = http.Server.prototype.emit;
http.Server.prototype.emit = function (event, request, response, ...rest) {
    if (event === 'request' && process.env.PEERS_LOG) {
        const writeHead = response.writeHead;
        response.writeHead = function (...head) {
            const answer = writeHead.apply(this, head);
            write(request, response);
            return answer;
        };
    }
    return emit.call(this, event, request, response, ...rest);
};

function write(request, response) {
    const [path, query] = (request.originalUrl ?? request.url).split('?');
    const session = request.headers['mcp-session-id'] ?? null;
    const given = /^mcp-session-id: (.*)$/im.exec(response._header ?? '')?.[1].trim();
    const line = {
        pid: process.pid,
        method: request.method,
        path,
        session,
        query: query ?? '',
        version: request.headers['mcp-protocol-version'] ?? null,
        rpc: request.headers['mcp-method'] ?? null,
        status: response.statusCode,
        created: given && !session && response.statusCode < 300 ? given : null
    };
    fs.appendFileSync(process.env.PEERS_LOG, JSON.stringify(line) + '\n');
}
