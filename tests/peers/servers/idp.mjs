// In: TLS_CERT, TLS_KEY, KEYS (a JWKS file, made when it is not there), PORT (0 = a free one), PEERS_LOG, and as the first
// argument further clients (JSON). Out: npm oidc-provider on https://localhost, which asks nobody: the person is who the
// browser's header X-Peers-User says. Prints {"port", "pid"} once bound; one JSON line per request in $PEERS_LOG.
//
// What a token is like is decided by the resource's URL: with `RS256`, say, in it that signs, else ES256; `opaque`, no JWT;
// `short`, it lives SHORT_SECONDS.
import { generateKeyPairSync, randomUUID } from 'node:crypto';
import { appendFileSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:https';
import Provider from 'oidc-provider';

const SHORT_SECONDS = 3;
const SCOPES = 'mcp:read mcp:write mcp:admin';
const HOURS = { RefreshToken: 3600, Session: 3600, Grant: 3600, Interaction: 3600, IdToken: 3600 };
const ALGORITHMS = ['RS256', 'PS256', 'ES384', 'EdDSA', 'Ed25519'];
const GROUPS = { alice: ['finops', 'staff'], bob: ['staff'] };

const server = createServer({ cert: readFileSync(process.env.TLS_CERT), key: readFileSync(process.env.TLS_KEY) });
server.listen(Number(process.env.PORT ?? 0), '127.0.0.1', () => {
    const { port } = server.address();
    server.on('request', provider(`https://localhost:${port}`).callback());
    console.log(JSON.stringify({ port, pid: process.pid }));
});

function provider(issuer) {
    const made = new Provider(issuer, {
        clients: JSON.parse(process.argv[2] ?? '[]'),
        jwks: keys(process.env.KEYS),
        cookies: { keys: [randomUUID()] },
        scopes: ['openid', 'offline_access', ...SCOPES.split(' ')],
        features: {
            devInteractions: { enabled: false },
            registration: { enabled: true },
            clientIdMetadataDocument: { enabled: true, ack: 'draft-02' },
            clientCredentials: { enabled: true },
            introspection: { enabled: true },
            revocation: { enabled: true },
            resourceIndicators: {
                enabled: true,
                // clients of 2025-03-26 name no resource
                defaultResource: (_, __, oneOf) => oneOf ?? process.env.RESOURCE,
                getResourceServerInfo: (_, resource) => resourceServer(resource),
                useGrantedResource: () => true // a client names the resource once
            }
        },
        // By default it fetches nothing from loopback addresses, where all our clients' documents are.
        fetch: (url, { dispatcher, ...options }) => fetch(url, options),
        // A registration says which scopes the client wants at first; it may ask for more later (step-up).
        extraClientMetadata: { properties: ['peers'], validator: (_, __, ___, metadata) => void delete metadata.scope },
        enabledJWA: { idTokenSigningAlgValues: ['ES256', ...ALGORITHMS] },
        pkce: { required: () => true },
        issueRefreshToken: (_, client) => client.grantTypeAllowed('refresh_token'),
        rotateRefreshToken: () => true,
        ttl: { ...HOURS, AccessToken: lifetime, ClientCredentials: lifetime },
        findAccount: (_, sub) => ({ accountId: sub, claims: () => ({ sub }) }),
        extraTokenClaims: (_, token) => ({ groups: GROUPS[token.accountId] ?? [], email_verified: token.accountId === 'alice' }),
        interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
        renderError: (ctx, out) => void (ctx.body = out)
    });
    made.use(log);
    made.use((ctx, next) => (ctx.path.startsWith('/interaction/') ? consent(made, ctx) : next()));
    return made;
}

function resourceServer(resource) {
    const seconds = resource.includes('short') ? SHORT_SECONDS : 3600;
    const sign = { alg: ALGORITHMS.find(name => resource.includes(name)) ?? 'ES256' };
    const form = resource.includes('opaque') ? { accessTokenFormat: 'opaque' } : { accessTokenFormat: 'jwt', jwt: { sign } };
    return { scope: SCOPES, audience: resource, accessTokenTTL: seconds, ...form };
}

function lifetime(_, token) {
    return token.resourceServer?.accessTokenTTL ?? 3600;
}

/** Logs in whom the browser names, and grants all that was asked for. */
async function consent(made, ctx) {
    const { params } = await made.interactionDetails(ctx.req, ctx.res);
    const accountId = ctx.get('x-peers-user') || 'alice';
    const grant = new made.Grant({ accountId, clientId: params.client_id });
    const scopes = params.scope ?? '';
    grant.addOIDCScope(scopes);
    for (const resource of [params.resource ?? []].flat()) grant.addResourceScope(resource, scopes);
    const result = { login: { accountId }, consent: { grantId: await grant.save() } };
    ctx.respond = false;
    await made.interactionFinished(ctx.req, ctx.res, result, { mergeWithLastSubmission: false });
}

async function log(ctx, next) {
    await next();
    if (!process.env.PEERS_LOG) return;
    const grant = ctx.oidc?.params?.grant_type;
    const line = { method: ctx.method, path: ctx.path, status: ctx.status, grant: grant ?? null };
    appendFileSync(process.env.PEERS_LOG, JSON.stringify(line) + '\n');
}

function keys(file) {
    if (!existsSync(file)) {
        const curves = ['P-256', 'P-384'].map(namedCurve => generateKeyPairSync('ec', { namedCurve }));
        const made = [...curves, generateKeyPairSync('rsa', { modulusLength: 2048 }), generateKeyPairSync('ed25519')];
        const jwks = made.map(({ privateKey }) => ({ ...privateKey.export({ format: 'jwk' }), kid: randomUUID(), use: 'sig' }));
        writeFileSync(file, JSON.stringify({ keys: jwks }));
    }
    return JSON.parse(readFileSync(file, 'utf8'));
}
