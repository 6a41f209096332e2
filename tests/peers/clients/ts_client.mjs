// In: the URL of an MCP server and flags. Out: one JSON line per session on stdout, the same as clients/py_client.py.
// SDK=1 drives @modelcontextprotocol/sdk, SDK=2 @modelcontextprotocol/client. --mode legacy|auto|2026-07-28 is for SDK 2.
import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { once } from 'node:events';
import { parseArgs } from 'node:util';
import { Agent, fetch as undiciFetch } from 'undici';

const STEPS = 4;
const SECONDS = 100;
const { values: args, positionals } = parseArgs({
    allowPositionals: true,
    options: {
        transport: { type: 'string', default: 'http' },
        mode: { type: 'string', default: 'legacy' },
        ca: { type: 'string' },
        header: { type: 'string' },
        h2: { type: 'boolean', default: false },
        sessions: { type: 'string', default: '1' },
        tools: { type: 'string', default: 'kit' },
        stateless: { type: 'boolean', default: false },
        json: { type: 'boolean', default: false },
        pause: { type: 'boolean', default: false }
    }
});
const url = new URL(positionals[0]);
const sdk = process.env.SDK === '2' ? await sdk2() : await sdk1();
const sessions = Number(args.sessions);
const barrier = makeBarrier(sessions);

const reports = await Promise.all(Array.from({ length: sessions }, (_, number) => guarded(number)));
for (const report of reports) console.log(JSON.stringify(report));
process.exit(reports.every(report => report.ok) ? 0 : 1);

async function guarded(session) {
    const report = { session, ok: false, pids: [], counts: [], http: [], step: 'connect' };
    try {
        await withTimeout(oneSession(report), SECONDS * 1000, `the session took longer than ${SECONDS} s`);
        report.ok = true;
        delete report.step;
    } catch (error) {
        report.error = `${error?.name}: ${error?.message} ${error?.cause ?? ''}`.slice(0, 500);
        barrier.leave(report);
    }
    report.pids = [...new Set(report.pids)];
    report.http = [...new Set(report.http)];
    return report;
}

async function oneSession(report) {
    const transport = makeTransport(report);
    const client = sdk.client();
    let heard = 0;
    const onListChanged = () => void heard++;
    sdk.onToolListChanged(client, onListChanged);
    await client.connect(transport);
    report.protocol = sdk.protocol(client, transport);
    const modern = report.protocol >= '2026-07-28';
    const run = { client, report, key: randomUUID(), sticky: !modern && !args.stateless, heard: () => heard };
    await firstHalf(run);
    report.step = 'barrier';
    await barrier.wait(report);
    await secondHalf(run);
    report.step = 'close';
    if (transport.terminateSession && run.sticky) await transport.terminateSession();
    await client.close();
}

async function firstHalf(run) {
    run.report.step = 'tools/list';
    const { tools } = await run.client.listTools();
    check(tools.length > 0, 'no tools');
    if (args.tools !== 'kit') return otherServer(run);
    await progress(run);
    await count(run);
    await count(run);
    await message(run);
    await large(run);
}

async function secondHalf(run) {
    if (args.tools !== 'kit') return otherServer(run);
    await count(run);
    await message(run);
    await progress(run);
}

async function progress(run) {
    run.report.step = 'progress';
    const key = run.sticky && !args.json ? run.key : '';
    let arrived = 0;
    const acks = [];
    const onprogress = ({ progress: step }) => {
        arrived++;
        if (key) acks.push(call(run, 'ack', { key, step }));
    };
    check(textOf(await call(run, 'slow', { steps: STEPS, key }, { onprogress })) === 'done', 'slow did not finish');
    await Promise.all(acks);
    run.report.progress = arrived;
    check(arrived >= 3 || args.json, `only ${arrived} progress notifications`);
}

async function count(run) {
    run.report.step = 'count';
    const answer = JSON.parse(textOf(await call(run, 'count', { key: run.key })));
    run.report.pids.push(answer.pid);
    run.report.counts.push(answer.count);
    if (!run.sticky) return;
    const expected = run.report.counts.length;
    check(answer.session === expected, `session counter: ${JSON.stringify(answer)}`);
    check(answer.count === expected, `counter of another replica: ${JSON.stringify(answer)}`);
}

/** A message which belongs to no request: it must come over the GET stream. */
async function message(run) {
    run.report.step = 'server message';
    if (run.report.protocol >= '2026-07-28' && sessions === 1) return listen(run);
    if (!run.sticky) return;
    for (let attempt = 1; attempt <= 10; attempt++) { // the SDK opens its GET stream in the background
        const before = run.heard();
        await call(run, 'touch', {});
        for (let wait = 0; wait < 30 && run.heard() === before; wait++) await pause(50);
        if (run.heard() > before) {
            run.report.touches = (run.report.touches ?? 0) + attempt;
            return;
        }
    }
    throw new Error('no message arrived on the GET stream in 10 tries');
}

/** 2026-07-28: the listen stream and the call that causes the message must meet on one replica. */
async function listen(run) {
    const before = run.heard();
    const subscription = await run.client.listen({ toolsListChanged: true });
    await call(run, 'touch', {});
    for (let wait = 0; wait < 200 && run.heard() === before; wait++) await pause(50);
    check(run.heard() > before, 'the listen stream stayed silent');
    await subscription.close();
    run.report.listened = (run.report.listened ?? 0) + 1;
}

async function large(run) {
    run.report.step = 'big';
    check(textOf(await call(run, 'big', { size: 200_000 })).length === 200_000, 'a large answer came back short');
}

/** Servers that are not ours: they have an echo and a slow call with progress. */
async function otherServer(run) {
    run.report.step = 'echo';
    check(textOf(await call(run, 'echo', { message: run.key })).includes(run.key), 'echo did not echo');
    let [name, argumentsOfTool] = ['trigger-long-running-operation', { duration: 1, steps: 4 }];
    if (args.tools === 'demo') {
        [name, argumentsOfTool] = ['slow', { n: 4, interval_ms: 100 }];
        for (let turn = 0; turn < 2; turn++) {
            run.report.pids.push(textOf(await call(run, 'whoami', {})));
            run.report.counts.push(Number(textOf(await call(run, 'count', {}))));
        }
        const risen = run.report.counts.every((count, place) => count === place + 1);
        check(risen, `session counter: ${run.report.counts}`);
    }
    run.report.step = 'progress';
    let arrived = 0;
    const onprogress = () => void arrived++;
    await call(run, name, argumentsOfTool, { onprogress });
    run.report.progress = arrived;
    check(arrived >= 3, `only ${arrived} progress notifications`);
}

async function call(run, name, argumentsOfTool, options) {
    const result = await sdk.call(run.client, { name, arguments: argumentsOfTool }, options);
    check(!result.isError, `${name}: ${textOf(result)}`);
    return result;
}

function makeTransport(report) {
    const ca = args.ca && readFileSync(args.ca);
    const dispatcher = new Agent({ allowH2: args.h2, connect: { ca, ALPNProtocols: args.h2 ? ['h2'] : ['http/1.1'] } });
    const fetch = (input, init) => {
        report.http.push(args.h2 ? 'HTTP/2' : 'HTTP/1.1');
        const headers = new Headers(init?.headers);
        if (args.header) headers.set(...args.header.split(': '));
        return undiciFetch(input, { ...init, headers: Object.fromEntries(headers), dispatcher });
    };
    if (args.transport === 'sse') return new sdk.SSEClientTransport(url, { fetch, eventSourceInit: { fetch } });
    return new sdk.StreamableHTTPClientTransport(url, { fetch });
}

async function sdk1() {
    const { Client } = await import('@modelcontextprotocol/sdk/client/index.js');
    const { StreamableHTTPClientTransport } = await import('@modelcontextprotocol/sdk/client/streamableHttp.js');
    const { SSEClientTransport } = await import('@modelcontextprotocol/sdk/client/sse.js');
    const { ToolListChangedNotificationSchema } = await import('@modelcontextprotocol/sdk/types.js');
    return {
        StreamableHTTPClientTransport,
        SSEClientTransport,
        client: () => new Client({ name: 'peers-ts1', version: '1.0.0' }),
        onToolListChanged: (client, heard) => client.setNotificationHandler(ToolListChangedNotificationSchema, heard),
        protocol: (_, transport) => transport.protocolVersion ?? transport._protocolVersion ?? '2025-11-25',
        call: (client, params, options) => client.callTool(params, undefined, options)
    };
}

async function sdk2() {
    const { Client, StreamableHTTPClientTransport, SSEClientTransport } = await import('@modelcontextprotocol/client');
    const mode = /^\d/.test(args.mode) ? { pin: args.mode } : args.mode;
    return {
        StreamableHTTPClientTransport,
        SSEClientTransport,
        client: () => new Client({ name: 'peers-ts2', version: '1.0.0' }, { versionNegotiation: { mode } }),
        onToolListChanged: (client, heard) => client.setNotificationHandler('notifications/tools/list_changed', heard),
        protocol: client => client.getNegotiatedProtocolVersion(),
        call: (client, params, options) => client.callTool(params, options)
    };
}

/** All sessions meet here; a session that failed no longer counts. */
function makeBarrier(parties) {
    const arrived = new Set();
    let open;
    const opened = new Promise(resolve => (open = resolve));
    const note = async report => {
        const before = arrived.size;
        arrived.add(report);
        if (before === parties || arrived.size !== parties) return;
        if (args.pause) {
            console.log(JSON.stringify({ event: 'paused' }));
            await once(process.stdin, 'data');
        }
        open();
    };
    return { wait: report => (note(report), opened), leave: report => void note(report) };
}

function withTimeout(promise, milliseconds, words) {
    let timer;
    const late = new Promise((_, reject) => (timer = setTimeout(() => reject(new Error(words)), milliseconds)));
    return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

function pause(milliseconds) {
    return new Promise(resolve => setTimeout(resolve, milliseconds));
}

function textOf(result) {
    return result.content.map(part => part.text ?? '').join('');
}

function check(condition, words) {
    if (!condition) throw new Error(words);
}
