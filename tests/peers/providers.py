"""In: the tests' certificate. Out: running OAuth providers, and tokens of people and programs from them, without an SDK."""

import base64
import contextlib
import hashlib
import http.client
import json
import os
import secrets
import socket
import ssl
import sys
import urllib.parse

from harness import HERE, NODE, START_SECONDS, Process

sys.path.insert(0, str(HERE / "clients"))
import browser  # noqa: E402

CALLBACK = "http://localhost:1/callback"
PROGRAM = {"client_id": "robot", "client_secret": "robot-secret-0123456789"}
EDGE = {"client_id": "edge", "client_secret": "edge-secret-0123456789"}
PERSON = {"client_id": "tests"}
CLIENTS = [
    {**PROGRAM, "grant_types": ["client_credentials"], "redirect_uris": [], "response_types": []},
    {**EDGE, "grant_types": [], "redirect_uris": [], "response_types": []},
    {
        **PERSON,
        "token_endpoint_auth_method": "none",
        "grant_types": ["authorization_code", "refresh_token"],
        "redirect_uris": [CALLBACK],
    },
]


def free_port():
    """A port that nobody has now: for what must know its public URL before it listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def fetch(method, url, ca, form=None, body=None, **headers):
    """One exchange over TLS; returns status, headers and body. A form is sent as one, another body as JSON."""
    parts = urllib.parse.urlsplit(url)
    context = ssl.create_default_context(cafile=ca)
    connection = http.client.HTTPSConnection(parts.hostname, parts.port, timeout=20, context=context)
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    data = None
    if form is not None:
        data, sent["content-type"] = urllib.parse.urlencode(form), "application/x-www-form-urlencoded"
    elif body is not None:
        data, sent["content-type"] = json.dumps(body), "application/json"
    connection.request(method, parts.path + (f"?{parts.query}" if parts.query else ""), data, sent)
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, text


def basic(client):
    pair = f"{client['client_id']}:{client['client_secret']}"
    return "Basic " + base64.b64encode(pair.encode()).decode()


class OAuthProvider:
    """What both providers can: tokens by the usual grants, introspection, revocation, by the metadata that they publish."""

    def __init__(self, certificate):
        self.certificate, self.ca = certificate, certificate.ca
        self.process = None

    def metadata(self):
        status, _, body = fetch("GET", self.issuer + "/.well-known/openid-configuration", self.ca)
        assert status == 200, f"{status} {body[:300]}"
        return json.loads(body)

    def post(self, endpoint, form, client=None):
        headers = {"authorization": basic(client)} if client else {}
        status, _, body = fetch("POST", self.metadata()[endpoint], self.ca, form, **headers)
        return status, json.loads(body) if body else None

    def granted(self, form, client=None):
        status, answer = self.post("token_endpoint", form, client)
        assert status == 200, f"the provider refused: {status} {answer}"
        return answer

    def program_token(self, resource, scope=""):
        """Of nobody in person: client_credentials."""
        form = {"grant_type": "client_credentials", "resource": resource, "scope": scope}
        return self.granted(form, self.program)["access_token"]

    def introspect(self, token):
        return self.post("introspection_endpoint", {"token": token}, self.edge)

    def revoke(self, token):
        status, answer = self.post("revocation_endpoint", {"token": token}, self.program)
        assert status == 200, f"{status} {answer}"

    def end(self):
        if self.process:
            self.process.end()
            self.process = None


class Idp(OAuthProvider):
    """npm oidc-provider (servers/idp.mjs)."""

    program, edge = PROGRAM, EDGE

    def __init__(self, certificate, folder):
        super().__init__(certificate)
        self.folder, self.port, self.generation = folder, 0, 0
        self.log = folder / "idp.jsonl"
        self.log.touch()

    def start(self, new_keys=False, **more):
        """Starts it, after the first time on the same port; all that it had in memory is forgotten."""
        self.generation += new_keys
        env = {
            "TLS_CERT": self.certificate.cert,
            "TLS_KEY": self.certificate.key,
            "KEYS": str(self.folder / f"keys-{self.generation}.json"),
            "PORT": str(self.port),
            "PEERS_LOG": str(self.log),
            "NODE_EXTRA_CA_CERTS": self.ca,  # it fetches clients' metadata documents
            **more,
        }
        self.process = Process([NODE, str(HERE / "servers/idp.mjs"), json.dumps(CLIENTS)], env, name="oidc-provider")
        line = self.process.wait_line("stdout", lambda line: line.startswith('{"port"'), START_SECONDS)
        self.port = json.loads(line)["port"]
        self.issuer = f"https://localhost:{self.port}"
        return self

    def requests(self, since=0, **wanted):
        """The log lines after the first `since` ones that have these values."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines()[since:]]
        return [line for line in lines if all(line[name] == value for name, value in wanted.items())]

    def tokens(self, user, resource, scope="mcp:read"):
        """What a person gets who logs in with a browser: the token endpoint's whole answer."""
        verifier, state = secrets.token_urlsafe(48), secrets.token_urlsafe(8)
        digest = hashlib.sha256(verifier.encode()).digest()
        asked = {
            "response_type": "code",
            "client_id": PERSON["client_id"],
            "redirect_uri": CALLBACK,
            "scope": scope,
            "resource": resource,
            "state": state,
            "code_challenge": base64.urlsafe_b64encode(digest).decode().rstrip("="),
            "code_challenge_method": "S256",
        }
        url = self.metadata()["authorization_endpoint"] + "?" + urllib.parse.urlencode(asked)
        came = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(browser.follow(url, self.ca, user)).query))
        assert came.get("state") == state and came.get("iss") == self.issuer, came
        form = {"grant_type": "authorization_code", "code": came["code"], "code_verifier": verifier}
        return self.granted({**form, "redirect_uri": CALLBACK, **PERSON, "resource": resource})

    def token(self, user, resource, scope="mcp:read"):
        return self.tokens(user, resource, scope)["access_token"]

    def refreshed(self, tokens):
        return self.granted({"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"], **PERSON})


class Canaille(OAuthProvider):
    """PyPI's Canaille (servers/canaille_idp.py): tokens for no resource, but for the clients that may introspect them."""

    program, edge = PROGRAM, EDGE
    PASSWORDS = {"alice": "alice-password-1", "bob": "bob-password-1"}

    def start(self):
        usual = {"token_endpoint_auth_method": "client_secret_basic", "scope": ["openid", "mcp:read", "mcp:admin"]}
        grants = ["client_credentials", "password", "refresh_token"]
        clients = [{**client, "client_name": client["client_id"], "grant_types": grants, **usual} for client in (PROGRAM, EDGE)]
        users = [{"user_name": name, "password": password} for name, password in self.PASSWORDS.items()]
        env = {"TLS_CERT": self.certificate.cert, "TLS_KEY": self.certificate.key}
        content = json.dumps({"users": users, "clients": clients})
        command = [str(HERE / ".cache/venv-canaille/bin/python"), str(HERE / "servers/canaille_idp.py"), content]
        self.process = Process(command, env, name="Canaille")
        line = self.process.wait_line("stdout", lambda line: line.startswith('{"port"'), START_SECONDS)
        self.issuer = f"https://localhost:{json.loads(line)['port']}"
        return self

    def token(self, user, scope="openid mcp:read"):
        """What a person gets who gives a program the password: Canaille's consent pages need a person."""
        form = {"grant_type": "password", "username": user, "password": self.PASSWORDS[user], "scope": scope}
        return self.granted(form, PROGRAM)["access_token"]


def head(token):
    """The head of a JWT."""
    return part(token, 0)


def claims(token):
    """The claims of a JWT, unchecked."""
    return part(token, 1)


def part(token, place):
    text = token.split(".")[place]
    return json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))


@contextlib.contextmanager
def environment(**values):
    """Variables of this process, for the children that are started meanwhile."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
