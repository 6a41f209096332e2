// In: what differs between the TypeScript SDK lines (how a handler sends progress, which session it serves). Out: the kit's
// tools as plain handlers, the same names and answers as servers/py_server.py.
import { appendFileSync } from 'node:fs';
import { z } from 'zod';

const byKey = new Map();
const bySession = new Map();
const acks = new Map();

/** `adapter` gives progress(context, step, total), session(context), headers(context) and touch(). */
export function tools(adapter) {
    return {
        echo: [{ text: z.string() }, async ({ text }) => said(text)],
        whoami: [{}, async (_, context) => said({ pid: process.pid, headers: adapter.headers(context) })],
        count: [{ key: z.string() }, async ({ key }, context) => said(count(key, adapter.session(context)))],
        delete_trace: [{ key: z.string() }, async ({ key }) => said(deleteTrace(key))],
        slow: [{ steps: z.number(), key: z.string() }, (args, context) => slow(args, context, adapter)],
        ack: [{ key: z.string(), step: z.number() }, async ({ key, step }) => (gate(key, step).open(), said('ok'))],
        silent: [{ seconds: z.number() }, async ({ seconds }) => (await pause(seconds * 1000), said('spoke'))],
        big: [{ size: z.number() }, async ({ size }) => said('x'.repeat(size))],
        touch: [{}, async () => (await adapter.touch(), said('touched'))]
    };
}

/** Three tools of the list, and where the next ones are. */
export function page(all, cursor = '0') {
    const names = Object.keys(all);
    const start = Number(cursor);
    const listed = names.slice(start, start + 3).map(name => ({ name, description: name, inputSchema: { type: 'object' } }));
    return { tools: listed, ...(start + 3 < names.length && { nextCursor: String(start + 3) }) };
}

function count(key, session) {
    byKey.set(key, (byKey.get(key) ?? 0) + 1);
    if (session) bySession.set(session, (bySession.get(session) ?? 0) + 1);
    return { pid: process.pid, count: byKey.get(key), session: session ? bySession.get(session) : null };
}

/** Leaves its key in a file: proof that it ran, for tests of who may run it. */
function deleteTrace(key) {
    appendFileSync(`${process.env.PEERS_LOG}.trace`, `${key}\n`);
    return { deleted: key };
}

async function slow({ steps, key }, context, adapter) {
    for (let step = 0; step < steps; step++) {
        await adapter.progress(context, step, steps);
        if (key) {
            await gate(key, step).opened;
            acks.delete(`${key}/${step}`);
        } else {
            await pause(100);
        }
    }
    return said('done');
}

/** What `slow` waits at after each step until the client says that the progress has arrived. */
function gate(key, step) {
    const name = `${key}/${step}`;
    if (!acks.has(name)) {
        let open;
        const opened = new Promise(resolve => (open = resolve));
        acks.set(name, { open, opened });
    }
    return acks.get(name);
}

const pause = milliseconds => new Promise(resolve => setTimeout(resolve, milliseconds));

function said(answer) {
    return { content: [{ type: 'text', text: typeof answer === 'string' ? answer : JSON.stringify(answer) }] };
}
