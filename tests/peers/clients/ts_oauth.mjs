// In: the URL of a protected MCP server and flags. Out: one JSON line, the same as clients/py_oauth.py.
// SDK=1 drives @modelcontextprotocol/sdk, SDK=2 @modelcontextprotocol/client, SDK=2025-03-26 a release that knows nothing
// newer than that revision. NODE_EXTRA_CA_CERTS names the CA; BROWSER_PROGRAM is clients/browser.py with its interpreter.
import { execFile } from 'node:child_process';
import { parseArgs, promisify } from 'node:util';

const SECONDS = 60;
const CALLBACK = 'http://localhost:1/callback';
const { values: args, positionals } = parseArgs({
    allowPositionals: true,
    options: {
        transport: { type: 'string', default: 'http' },
        flow: { type: 'string', default: 'code' },
        document: { type: 'string' },
        client: { type: 'string' },
        issuer: { type: 'string' },
        scope: { type: 'string' },
        mode: { type: 'string', default: 'legacy' },
        steps: { type: 'string', default: 'list,count' },
        // SDK 1.x answers a step-up with its refresh token, which cannot widen a scope; without one it asks the person.
        'no-refresh': { type: 'boolean', default: false }
    }
});
const url = new URL(positionals[0]);
const report = { session: 0, ok: false, step: 'connect', tools: null, admin: null, client: null };
for (const name of ['counts', 'sessions', 'logins', 'tokens', 'scopes', 'requests']) report[name] = [];
const sdk = await { 1: sdk1, 2: sdk2, '2025-03-26': oldSdk }[process.env.SDK]();
noteRequests();

try {
    await withTimeout(run(), SECONDS * 1000, `the session took longer than ${SECONDS} s`);
    report.ok = true;
} catch (error) {
    report.error = `${error?.name}: ${error?.message} ${error?.cause ?? ''}`.slice(0, 800);
}
console.log(JSON.stringify(report));
process.exit(report.ok ? 0 : 1);

async function run() {
    const provider = args.flow === 'program' ? program() : person();
    let transport, client;
    const connect = () => {
        const Transport = args.transport === 'sse' ? sdk.SSEClientTransport : sdk.StreamableHTTPClientTransport;
        transport = new Transport(url, { authProvider: provider });
        client = sdk.client();
        return client.connect(transport);
    };
    const authorized = async action => {
        try {
            return await action();
        } catch (error) {
            if (!provider.came) throw error;
            const came = provider.came;
            provider.came = undefined;
            await transport.finishAuth(sdk.wantsParams ? came : came.get('code'));
            return await action();
        }
    };
    const call = name => authorized(() => sdk.call(client, { name, arguments: { key: 'oauth' } })).then(jsonOf);
    await authorized(connect);
    for (const step of args.steps.split(',')) {
        report.step = step;
        if (step === 'list') report.tools = (await authorized(() => client.listTools())).tools.map(tool => tool.name).sort();
        else if (step === 'count') report.counts.push(await call('count'));
        else if (step === 'admin') report.admin = await call('delete_trace');
        else if (step === 'renew') {
            const held = report.tokens.length;
            while (report.tokens.length === held) { // until the SDK has had to ask for another
                report.counts.push(await call('count'));
                await new Promise(resolve => setTimeout(resolve, 100));
            }
        }
    }
    report.step = 'close';
    await client.close();
}

/** A person's client: what the SDK asks an application to provide, and a browser without a person. */
function person() {
    const kept = {};
    return {
        redirectUrl: CALLBACK,
        clientMetadata: {
            client_name: 'peers',
            redirect_uris: [CALLBACK],
            grant_types: args['no-refresh'] ? ['authorization_code'] : ['authorization_code', 'refresh_token'],
            response_types: ['code'],
            token_endpoint_auth_method: 'none',
            ...(args.scope && { scope: args.scope })
        },
        clientMetadataUrl: args.document,
        clientInformation: () => kept.client,
        saveClientInformation: client => {
            kept.client = client;
            report.client = client.client_id;
        },
        tokens: () => kept.tokens,
        saveTokens: tokens => keep(kept, tokens),
        saveCodeVerifier: verifier => void (kept.verifier = verifier),
        codeVerifier: () => kept.verifier,
        saveDiscoveryState: state => void (kept.discovery = state),
        discoveryState: () => kept.discovery,
        async redirectToAuthorization(address) {
            report.logins.push(address.searchParams.get('scope'));
            const [python, script] = JSON.parse(process.env.BROWSER_PROGRAM);
            const { stdout } = await promisify(execFile)(python, [script, address.href]);
            this.came = new URL(stdout.trim()).searchParams;
        }
    };
}

function program() {
    const [clientId, clientSecret] = args.client.split(':');
    const provider = new sdk.ClientCredentialsProvider({ clientId, clientSecret, expectedIssuer: args.issuer, scope: args.scope });
    const save = provider.saveTokens.bind(provider);
    provider.saveTokens = tokens => (keep({}, tokens), save(tokens));
    return provider;
}

function keep(kept, tokens) {
    kept.tokens = tokens;
    report.tokens.push(tokens.access_token);
    report.scopes.push(tokens.scope);
}

/** Every SDK ends at the global fetch. */
function noteRequests() {
    const fetch = globalThis.fetch;
    globalThis.fetch = async (input, init) => {
        const answer = await fetch(input, init);
        const session = answer.headers.get('mcp-session-id');
        if (session && !report.sessions.includes(session)) report.sessions.push(session);
        report.requests.push([init?.method ?? 'GET', String(input), answer.status]);
        return answer;
    };
}

async function sdk1() {
    const { Client } = await import('@modelcontextprotocol/sdk/client/index.js');
    const { StreamableHTTPClientTransport } = await import('@modelcontextprotocol/sdk/client/streamableHttp.js');
    const { SSEClientTransport } = await import('@modelcontextprotocol/sdk/client/sse.js');
    const { ClientCredentialsProvider } = await import('@modelcontextprotocol/sdk/client/auth-extensions.js');
    return {
        StreamableHTTPClientTransport,
        SSEClientTransport,
        ClientCredentialsProvider,
        client: () => new Client({ name: 'peers-ts1', version: '1.0.0' }),
        call: (client, params) => client.callTool(params)
    };
}

async function sdk2() {
    const module = await import('@modelcontextprotocol/client');
    const mode = /^\d/.test(args.mode) ? { pin: args.mode } : args.mode;
    return {
        ...module,
        wantsParams: true,
        client: () => new module.Client({ name: 'peers-ts2', version: '1.0.0' }, { versionNegotiation: { mode } }),
        call: (client, params) => client.callTool(params)
    };
}

async function oldSdk() {
    const { Client } = await import('sdk-2025-03-26/client/index.js');
    const { StreamableHTTPClientTransport } = await import('sdk-2025-03-26/client/streamableHttp.js');
    const { SSEClientTransport } = await import('sdk-2025-03-26/client/sse.js');
    return {
        StreamableHTTPClientTransport,
        SSEClientTransport,
        client: () => new Client({ name: 'peers-old', version: '1.0.0' }),
        call: (client, params) => client.callTool(params)
    };
}

function withTimeout(promise, milliseconds, words) {
    let timer;
    const late = new Promise((_, reject) => (timer = setTimeout(() => reject(new Error(words)), milliseconds)));
    return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

function jsonOf(result) {
    const text = result.content.map(part => part.text ?? '').join('');
    if (result.isError) throw new Error(text);
    return JSON.parse(text);
}
