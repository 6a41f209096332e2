"""nginx with a small team's config, and mcp-edge with what `import nginx` makes of it, asked the same things.

Every row of the table goes to both. What they answer, and what the server behind them heard, must be alike;
where it is not, the row says in which field and why, and a difference that is gone fails, too. The same for whom
they let in where, of the servers in tests/import/choice.golden.
"""

import base64
import hashlib
import http.client
import http.server
import json
import os
import pathlib
import re
import shutil
import socket
import ssl
import struct
import subprocess
import threading

import pytest
from harness import START_SECONDS, Certificate, Process, log

# one user per kind of hash, all with the password `pass`
USERS = """bcrypt:$2y$05$Q31k4W5i1xkY99mvu434IOHtn.2MxAwcohmlQbMUjiXla47.nzwxe
apr1:$apr1$0baYNSck$1YOmJ9VODAQyQXOD6KqaQ/
sha:{SHA}nU4eI71bcnBGqeO0t9tXvY1u5oQ=
crypt5:$5$65QtOpbXgYj403Ql$n6CiQMcMox9a.UYKqrO7M.wL5GKWgqENDlpMsfE/W3C
crypt6:$6$cGV1gqa2NRthwt9O$A3xub8BYJyocFV2cdSkKYAiqyOvxwOggAo/xMH2NQrmTzF/DztinXkJXNMpp36ciNzsv5LYA3nzSWy/2w.hfz0
"""
KEY = "a-key-of-the-tests"

# how each nginx here begins; all that it writes is in a folder of its own
BEGIN = """
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log {level};
worker_processes 1;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
"""

CONF = BEGIN + """\
    limit_req_zone $binary_remote_addr zone=perip:1m rate=1r/m;
    limit_req_status 429;

    upstream mcp_backend {{
        server localhost:{backend};
    }}

    server {{
        listen 127.0.0.1:{plain};
        server_name localhost;
        return 301 https://$server_name:{tls}$request_uri;
    }}

    server {{
        listen 127.0.0.1:{acme};
        server_name localhost;
        location ^~ /.well-known/acme-challenge/ {{ root {folder}/acme; }}
        location / {{ return 308 https://$host:{tls}$request_uri; }}
    }}

    server {{
        listen 127.0.0.1:{tls} ssl http2;
        server_name localhost half.localhost;

        ssl_certificate {cert};
        ssl_certificate_key {key};

        add_header Strict-Transport-Security "max-age=31536000" always;
        add_header X-Frame-Options "SAMEORIGIN" always;
        add_header X-Content-Type-Options "nosniff" always;

        auth_basic "MCP Server";
        auth_basic_user_file users;

        proxy_set_header Host $host;
        proxy_set_header X-Real-IP $remote_addr;
        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        proxy_set_header X-Forwarded-Proto $scheme;
        proxy_http_version 1.1;
        proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection "upgrade";
        proxy_set_header X-Env prod;
        proxy_set_header X-Verified $ssl_client_verify;

        location / {{ proxy_pass http://mcp_backend; }}
        location /open/ {{ auth_basic off; proxy_pass http://mcp_backend; }}
        location /mapped/ {{ auth_basic off; proxy_pass http://mcp_backend/v1/; }}
        location = /exact {{ auth_basic off; proxy_pass http://mcp_backend/v2; }}
        location ^~ /cut/ {{ auth_basic off; rewrite ^/cut/(.*)$ /$1 break; proxy_pass http://mcp_backend; }}
        location ~ ^/(sse|messages)(/|$) {{ auth_basic off; proxy_pass http://mcp_backend; }}
        location /inside/ {{ auth_basic off; allow 10.0.0.0/8; deny all; proxy_pass http://mcp_backend; }}
        location /loopback/ {{ auth_basic off; allow 127.0.0.0/8; deny all; proxy_pass http://mcp_backend; }}
        location /first/ {{
            auth_basic off;
            allow 127.0.0.1;
            deny 127.0.0.0/8;
            allow all;
            proxy_pass http://mcp_backend;
        }}
        location /never/ {{
            auth_basic off;
            deny 127.0.0.1;
            allow 127.0.0.0/8;
            deny all;
            proxy_pass http://mcp_backend;
        }}
        location /both/ {{ allow 127.0.0.0/8; deny all; proxy_pass http://mcp_backend; }}
        location /keyed/ {{
            auth_basic off;
            if ($http_x_api_key != "{api_key}") {{ return 401; }}
            proxy_pass http://mcp_backend;
        }}
        location /limited/ {{
            auth_basic off;
            limit_req zone=perip burst=2 nodelay;
            proxy_pass http://mcp_backend;
        }}
        location /small/ {{ auth_basic off; client_max_body_size 1k; proxy_pass http://mcp_backend; }}
        location /closed/ {{ return 403; }}
        location /any/ {{
            satisfy any;
            allow 10.0.0.0/8;
            deny all;
            proxy_pass http://mcp_backend;
        }}
        location = /health {{ auth_basic off; return 200 "ok"; }}
        location /letters {{ auth_basic off; deny all; proxy_pass http://mcp_backend; }}
        location /letters-open {{ auth_basic off; proxy_pass http://mcp_backend; }}
        location /glue {{ auth_basic off; proxy_pass http://mcp_backend/on; }}
        location /@me {{ auth_basic off; deny all; proxy_pass http://mcp_backend; }}
    }}

    # the same name on a port of its own, without a password
    server {{
        listen 127.0.0.1:{inner};
        server_name localhost;
        add_header Strict-Transport-Security "max-age=31536000" always;
        add_header X-Frame-Options "SAMEORIGIN" always;
        add_header X-Content-Type-Options "nosniff" always;
        proxy_set_header Host $host;
        proxy_set_header X-Real-IP $remote_addr;
        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        proxy_set_header X-Forwarded-Proto $scheme;
        location /inner/ {{ proxy_pass http://mcp_backend; }}
        location /mapped/ {{ deny all; }}
    }}

    # a plain port that redirects, but for one path
    server {{
        listen 127.0.0.1:{acme};
        server_name half.localhost;
        proxy_set_header Host $host;
        proxy_set_header X-Real-IP $remote_addr;
        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        proxy_set_header X-Forwarded-Proto $scheme;
        location /plain/ {{ proxy_pass http://mcp_backend; }}
        location / {{ return 308 https://$host:{tls}$request_uri; }}
    }}
}}
"""


class Backend:
    """Answers every request with what it heard, speaks WebSocket, and streams two events."""

    def __init__(self):
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self):
                if self.headers.get("Upgrade", "").lower() == "websocket":
                    return self.websocket()
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if self.path.startswith("/sse"):
                    return self.events()
                heard = {
                    "method": self.command,
                    "path": self.path,
                    "body": body.decode(),
                    "headers": {name.lower(): value for name, value in self.headers.items()},
                }
                data = json.dumps(heard).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data if self.command != "HEAD" else b"")

            def events(self):
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.end_headers()
                self.wfile.write(b"data: 1\n\ndata: 2\n\n")
                self.close_connection = True

            def websocket(self):
                key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
                accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
                self.send_response(101)
                self.send_header("Upgrade", "websocket")
                self.send_header("Connection", "Upgrade")
                self.send_header("Sec-WebSocket-Accept", accept)
                self.end_headers()
                head = self.rfile.read(6)
                length, mask = head[1] & 0x7F, head[2:]
                said = bytes(b ^ mask[i % 4] for i, b in enumerate(self.rfile.read(length)))
                self.wfile.write(struct.pack("!BB", 0x81, len(said)) + said)
                self.close_connection = True

            do_GET = do_POST = do_DELETE = do_HEAD = do_OPTIONS = do_PUT = answer

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def end(self):
        self.server.shutdown()
        self.server.server_close()


def free_ports(count):
    """Ports that were free a moment ago: nginx takes no port 0."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


class Front:
    """Ports of one of the two, and how it is asked."""

    def __init__(self, ports, ca):
        self.plain, self.acme, self.tls, self.inner = ports
        self.ca = ca

    def ask(self, row):
        port = {"plain": self.plain, "acme": self.acme, "tls": self.tls, "inner": self.inner}[row.at]
        if row.at == "tls":
            context = ssl.create_default_context(cafile=self.ca)
            connection = http.client.HTTPSConnection("localhost", port, timeout=30, context=context)
        else:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        # as with the usual ports: a Host without one
        headers = {"Host": "localhost", "Accept": "application/json, text/event-stream", **row.headers}
        connection.request(row.method, row.path, row.body, headers)
        answer = connection.getresponse()
        seen = self.seen(answer, connection, row)
        connection.close()
        return seen

    def seen(self, answer, connection, row):
        """All that has to be alike, by name."""
        fields = {name.lower(): value for name, value in answer.getheaders()}
        seen = {"status": answer.status}
        challenge = fields.get("www-authenticate")
        if challenge:
            scheme, _, rest = challenge.partition(" ")
            seen["challenge"] = f"{scheme} {rest.split(',')[0].strip()}"
        if "location" in fields:
            seen["location"] = fields["location"].replace(str(self.tls), "TLS")
        for name in ("strict-transport-security", "x-frame-options", "x-content-type-options"):
            seen[name] = fields.get(name)
        if answer.status == 101:
            connection.sock.sendall(b"\x81\x85\0\0\0\0hello")
            seen["echo"] = connection.sock.recv(100)
            return seen
        data = answer.read()
        if answer.status == 200 and row.method != "HEAD" and fields.get("content-type") == "application/json":
            heard = json.loads(data)
            seen |= {f"heard {name}": heard[name] for name in ("method", "path", "body")}
            for name in HEARD:
                seen[f"heard {name}"] = heard["headers"].get(name)
        elif answer.status == 200 and row.method != "HEAD":
            seen["content"] = data
        return seen


# fields that servers behind look at
HEARD = [
    "host",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-real-ip",
    "x-env",
    "x-verified",
    "authorization",
    "x-api-key",
    "content-type",
    "accept",
    "cookie",
    "mcp-protocol-version",
]


class Row:
    def __init__(self, name, path, at="tls", method="GET", body=None, status=None, differs=None, times=1, **headers):
        self.name, self.path, self.at, self.method, self.times = name, path, at, method, times
        self.body = json.dumps(body) if isinstance(body, dict) else body
        self.headers = {key.replace("_", "-"): value for key, value in headers.items()}
        if self.body is not None:
            self.headers.setdefault("Content-Type", "application/json")
        self.status, self.differs = status, differs or {}


def basic(user, password):
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


PING = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
LARGE = {"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {"x": "x" * 2000}}
WS = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
}
RIGHT = basic("apr1", "pass")

# Why the two differ, wherever they do.
PERMANENT = "308 keeps the method of a POST, 301 does not"
STRIPPED = "the edge's credentials stay at the edge"
SPOOFED = "what a client says of its address is not passed on"
NGINX_NONE = "nginx passes on NONE, which servers do not need to hear from the edge"
ORIGIN = "a foreign web page is refused (MCP transports, Security Warning)"
METHODS = "methods that MCP does not use need `methods: any`"
PATHS = "paths that can be read in two ways are refused"
SATISFY = "`satisfy any` is not carried, so that the route refuses"
SLASH = "nginx redirects a prefix without its slash; the edge serves it"
WORDS = "the edge answers in words of its own"
NOTHING = "paths that have no server behind them are answered 404"
HOST = "names that no route has are answered 421"
NOSNIFF = "what the edge writes by itself is what it says it is, and is not sniffed"
CHALLENGE = "RFC 9110 §15.5.2: a 401 says what is asked for"

# the config asks for the field over TLS only
PLAIN = {"x-content-type-options": NOSNIFF}

ROWS = [
    # redirects
    Row("seed: plain goes to https", "/mcp", at="plain", differs={"status": PERMANENT, **PLAIN}),
    Row("path and query stay", "/mcp/x?a=1&b=%20", at="plain", differs={"status": PERMANENT, **PLAIN}),
    Row("a POST, too", "/mcp", at="plain", method="POST", body=PING, differs={"status": PERMANENT, **PLAIN}),
    Row("beside ACME: plain goes to https", "/mcp?x", at="acme", status=308, differs=PLAIN),
    Row("ACME's challenge", "/.well-known/acme-challenge/token", at="acme", status=200, differs=PLAIN),
    Row("ACME's challenge that is not there", "/.well-known/acme-challenge/gone", at="acme", status=404),
    # passwords
    Row("no password", "/mcp", status=401),
    Row("no password, POST", "/mcp", method="POST", body=PING, status=401),
    *(Row(f"right password, {kind}", "/mcp", status=200, Authorization=basic(kind, "pass"))
      for kind in ("bcrypt", "apr1", "sha", "crypt5", "crypt6")),
    *(Row(f"wrong password, {kind}", "/mcp", status=401, Authorization=basic(kind, "Pass"))
      for kind in ("bcrypt", "apr1", "sha", "crypt5", "crypt6")),
    Row("unknown user", "/mcp", status=401, Authorization=basic("nobody", "pass")),
    Row("empty password", "/mcp", status=401, Authorization=basic("apr1", "")),
    Row("broken base64", "/mcp", status=401, Authorization="Basic ????"),
    Row("another scheme", "/mcp", status=401, Authorization="Bearer pass"),
    # what servers hear
    Row("a call", "/mcp", method="POST", body=PING, status=200, Authorization=RIGHT, Mcp_Protocol_Version="2025-11-25"),
    Row("a query", "/mcp?a=1&b=%2Fx", status=200, Authorization=RIGHT),
    Row("HEAD", "/mcp", method="HEAD", status=200, Authorization=RIGHT),
    Row("DELETE", "/mcp", method="DELETE", status=200, Authorization=RIGHT),
    Row("cookies pass", "/open/x", status=200, Cookie="a=b"),
    Row("an address that a client made up", "/open/x", status=200, X_Forwarded_For="6.6.6.6"),
    Row("a field that nginx writes", "/open/x", status=200, X_Env="evil", X_Verified="SUCCESS", X_Real_IP="6.6.6.6"),
    Row("WebSocket", "/open/ws", status=101, **WS),
    Row("WebSocket without a password", "/ws", status=401, **WS),
    Row("a stream of events", "/sse", status=200),
    # paths
    Row("a location of its own is open", "/open/x", status=200),
    Row("a prefix that is mapped", "/mapped/x/y?z", status=200),
    Row("the prefix alone", "/mapped/", status=200),
    Row("the prefix without its slash", "/mapped", differs={"status": SLASH, "location": SLASH}),
    Row("one path alone", "/exact", status=200),
    Row("below one path alone", "/exact/x", status=401),
    Row("a rewrite", "/cut/x/y", status=200),
    Row("a regular expression that is plain", "/messages/x", status=200),
    Row("not quite it", "/messagesx", status=401),
    Row("health", "/health", status=200, differs={"content": WORDS}),
    Row("closed", "/closed/x", status=403),
    # addresses
    Row("only from elsewhere", "/inside/x", status=403),
    Row("only from here", "/loopback/x", status=200),
    Row("the first that matches: allow", "/first/x", status=200),
    Row("the first that matches: deny", "/never/x", status=403),
    Row("address and password", "/both/x", status=200, Authorization=RIGHT),
    Row("address without password", "/both/x", status=401),
    # keys
    Row("the right key", "/keyed/x", status=200, X_API_Key=KEY),
    Row("a wrong key", "/keyed/x", status=401, X_API_Key="x", differs={"challenge": CHALLENGE}),
    Row("no key", "/keyed/x", status=401, differs={"challenge": CHALLENGE}),
    # limits
    Row("within the limit", "/limited/x", status=200, times=3),
    Row("above the limit", "/limited/x", status=429),
    Row("a body that is too large", "/small/x", method="POST", body=LARGE, status=413),
    Row("a body that is not", "/small/x", method="POST", body=PING, status=200),
    # letters, not segments
    Row("what starts with the letters", "/lettersx/y", status=403),
    Row("longer letters", "/letters-open/y", status=200),
    Row("letters that become others", "/glued/x", status=200),
    Row("letters in another case", "/Letters", status=401),
    Row("a character that URLs may encode", "/@me/x", status=403),
    Row("encoded", "/%40me/x", status=403, differs={"status": PATHS}),
    # listeners
    Row("what the other port serves", "/inner/x", at="inner", status=200),
    Row("and it alone", "/inner/x", status=401),
    Row("what this port does not serve", "/mapped/x", at="inner", status=403, differs={"status": NOTHING}),
    Row("a path that is served in plain", "/plain/x", at="acme", status=200, Host="half.localhost"),
    Row("all else goes to https", "/x", at="acme", status=308, Host="half.localhost", differs=PLAIN),
    # what only the edge refuses
    Row("a restriction that is not carried", "/any/x", Authorization=RIGHT, differs={"status": SATISFY}),
    Row("a foreign page", "/open/x", Origin="https://evil.example", differs={"status": ORIGIN}),
    Row("a method that MCP does not use", "/open/x", method="PUT", body=PING, differs={"status": METHODS}),
    Row("a path in two ways", "/open/%2e%2e/x", differs={"status": PATHS, "challenge": PATHS}),
    Row("a name that is not served", "/open/x", Host="other.example", differs={"status": HOST}),
]


@pytest.fixture(scope="module")
def fronts(binary, tmp_path_factory):
    """Both of them before the same server, the edge with what the importer wrote."""
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    assert nginx, "nginx is missing: setup.sh installs Debian's as root, or install it by hand"
    folder = tmp_path_factory.mktemp("nginx")
    challenge = folder / "acme/.well-known/acme-challenge"
    challenge.mkdir(parents=True)
    (challenge / "token").write_text("token.thumbprint")
    (folder / "users").write_text(USERS)
    if os.geteuid() == 0:  # nginx's workers are then another user
        for path in (folder, *folder.parents):
            if path.stat().st_uid == 0 and path != pathlib.Path("/") and not path.stat().st_mode & 0o001:
                path.chmod(path.stat().st_mode | 0o011)
    certificate = Certificate(folder)
    backend = Backend()
    ports = free_ports(8)

    def conf(name, ports):
        plain, acme, tls, inner = ports
        values = {"folder": folder, "level": "error", "cert": certificate.cert, "key": certificate.key, "api_key": KEY}
        values |= {"plain": plain, "acme": acme, "tls": tls, "inner": inner, "backend": backend.port}
        (folder / name).write_text(CONF.format(**values))
        return folder / name

    yaml = folder / "edge.yaml"
    importing = [binary, "import", "nginx", str(conf("imported.conf", ports[4:])), "--output", str(yaml)]
    imported = subprocess.run(importing, capture_output=True, text=True, timeout=60)
    assert imported.returncode == 3, f"`satisfy any` is not carried: {imported.stderr}"
    assert "satisfy" in imported.stderr
    # what the importer does not know is where the state of this test goes
    yaml.write_text(f"state_dir: {folder}/state\nadmin: off\n" + yaml.read_text())
    running = [
        Process([nginx, "-e", str(folder / "error.log"), "-c", str(conf("nginx.conf", ports[:4]))], name="nginx"),
        Process([binary, "run", "--config", str(yaml)], name="mcp-edge"),
    ]
    try:
        running[1].wait_line("stderr", lambda line: line.strip() == "mcp-edge: ready", START_SECONDS)
        wait_for(ports[2], running[0])
        yield Front(ports[:4], certificate.ca), Front(ports[4:], certificate.ca)
    finally:
        for process in running:
            process.end()
        backend.end()


def wait_for(port, process):
    """Until somebody listens there."""
    for _ in range(START_SECONDS * 10):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            assert process.child.poll() is None, f"nginx ended\n{process.tail()}"
            threading.Event().wait(0.1)
    raise AssertionError(f"nothing listens on {port}\n{process.tail()}")


# Differences that every answered request has; a row may have more.
ALWAYS = {"heard x-verified": NGINX_NONE}


def test_the_table_is_long_enough():
    assert len(ROWS) >= 40
    assert len({row.name for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_both_answer_alike(row, fronts):
    nginx, edge = fronts
    for _ in range(row.times):
        theirs, ours = nginx.ask(row), edge.ask(row)
    if row.status:
        assert theirs["status"] == row.status, f"nginx itself: {theirs}"
    allowed = {**ALWAYS, **row.differs}
    if row.headers.get("Authorization") or row.headers.get("X-API-Key"):
        allowed |= {"heard authorization": STRIPPED, "heard x-api-key": STRIPPED}
    if "X-Forwarded-For" in row.headers:
        allowed["heard x-forwarded-for"] = SPOOFED
    refused = ours["status"] != theirs["status"]
    names = sorted(set(theirs) | set(ours))
    if refused:  # a refusal of one of them has nothing from the server behind, nor a place to go to
        names = [name for name in names if not name.startswith("heard")]
    different = [name for name in names if theirs.get(name) != ours.get(name)]
    unmeant = {name: (theirs.get(name), ours.get(name)) for name in different if name not in allowed}
    assert not unmeant, f"nginx and mcp-edge differ: {unmeant}"
    gone = [name for name in row.differs if name not in different]
    assert not gone, f"no difference any more in {gone}: take it out of the row"
    for name in different:
        log(f"{row.name}: {name}: {theirs.get(name)!r} / {ours.get(name)!r}: {allowed[name]}")


# --- who has a path: the servers of a property test of the import, and what its model says nginx does with each

GOLDEN = pathlib.Path(__file__).parents[1] / "import/choice.golden"
PLACE = re.compile(r"location (?P<kind>= |\^~ |~ |)(?P<what>\S+) { (?P<guard>.*?) (?P<does>proxy_pass http://127.0.0.1:9|root /srv/)(?P<number>\d+);")
# whom `allow 127.N.0.0/16` lets in
CALLERS = {"127.0.0.1": None, "127.1.0.1": "127.1.", "127.2.0.1": "127.2."}

CHOICE = BEGIN + """\
    server {{ {listens} location / {{ return 200 "$server_port $request_uri"; }} }}
{servers}
}}
"""


class Choice:
    """A server of the golden file: its locations by their numbers, and the model's choices."""

    def __init__(self, name, text, chosen):
        self.name, self.text, self.chosen = name, text, chosen
        self.places = {int(place["number"]): place for place in PLACE.finditer(text)}
        assert self.places and len(self.places) == text.count("location "), text

    def server(self, port, behind, told):
        """In nginx's words; `told`: answers say which location made them."""
        def place(found):
            number = int(found["number"])
            does = f"proxy_pass http://127.0.0.1:{behind[number]};" if "proxy" in found["does"] else "root /srv/nothing;"
            says = f" add_header X-Location {number} always;" if told else ""
            return f"location {found['kind']}{found['what']} {{ {found['guard']} {does}{says}"
        return f"server {{ listen 127.0.0.1:{port}; server_name {self.name};\n{PLACE.sub(place, self.text)}}}\n"

    def admits(self, number, caller):
        guard = self.places[number]["guard"]
        return guard == "allow all;" or bool(CALLERS[caller]) and f"allow {CALLERS[caller]}" in guard

    def is_served(self, number):
        return "proxy" in self.places[number]["does"]


def choices():
    paths, *parts = GOLDEN.read_text().split("\nserver\n")
    servers = []
    for n, part in enumerate(parts):
        text, chosen = part.rsplit("chosen ", 1)
        servers.append(Choice(f"s{n}.example", text, chosen.split()))
    return paths.split()[1:], servers


@pytest.fixture(scope="module")
def chosen(binary, tmp_path_factory):
    """What nginx does with every path of every server, and how mcp-edge is asked for the same."""
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    folder = tmp_path_factory.mktemp("choice")
    paths, servers = choices()
    most = max(max(server.places) for server in servers)
    front, edge, *behind = free_ports(3 + most)
    listens = " ".join(f"listen 127.0.0.1:{port};" for port in behind)
    texts = [server.server(front, behind, told=True) for server in servers]
    (folder / "nginx.conf").write_text(CHOICE.format(folder=folder, level="crit", listens=listens, servers="".join(texts)))
    # where each server begins: what the import says of it is said by lines
    texts = [server.server(edge, behind, told=False) for server in servers]
    begins = [1 + sum(text.count("\n") for text in texts[:n]) for n in range(len(texts))]
    (folder / "imported.conf").write_text("".join(texts))
    yaml = folder / "edge.yaml"
    importing = [binary, "import", "nginx", str(folder / "imported.conf"), "--output", str(yaml)]
    imported = subprocess.run(importing, capture_output=True, text=True, timeout=60)
    assert imported.returncode == 3, imported.stderr
    refused = {int(line) for line in re.findall(r"imported\.conf:(\d+): refused: ", imported.stderr)}
    refusing = {max(n for n, begin in enumerate(begins) if begin <= line) for line in refused}
    yaml.write_text(f"state_dir: {folder}/state\nadmin: off\naccess_log: off\n" + yaml.read_text())
    running = [
        Process([nginx, "-e", str(folder / "error.log"), "-c", str(folder / "nginx.conf")], name="nginx"),
        Process([binary, "run", "--config", str(yaml)], name="mcp-edge"),
    ]
    try:
        running[1].wait_line("stderr", lambda line: line.strip() == "mcp-edge: ready", START_SECONDS)
        wait_for(front, running[0])
        asked = http.client.HTTPConnection("127.0.0.1", front, timeout=30)
        theirs = {(n, path): by_nginx(asked, server, path) for n, server in enumerate(servers) for path in paths}
        yield paths, servers, theirs, refusing, (edge, behind)
    finally:
        for process in running:
            process.end()


def by_nginx(connection, server, path):
    """As the golden file has it."""
    connection.request("GET", path, headers={"Host": server.name})
    answer = connection.getresponse()
    answer.read()
    if answer.status == 301:
        assert answer.headers["Location"].endswith(f"{path}/"), answer.headers["Location"]
        return "/"
    return answer.headers.get("X-Location", "-")


def test_the_model_of_the_import_is_nginx(chosen):
    paths, servers, theirs, *_ = chosen
    assert len(servers) >= 60 and len(paths) >= 36
    for n, server in enumerate(servers):
        for path, model in zip(paths, server.chosen, strict=True):
            assert theirs[n, path] == model, f"{path}: nginx and the model differ\n{server.text}"


def test_whom_nginx_keeps_out_the_edge_keeps_out(chosen):
    paths, servers, theirs, refusing, (edge, behind) = chosen
    assert 0 < len(refusing) < len(servers) - 10, "servers of both kinds"
    served = 0
    for caller in CALLERS:
        connection = http.client.HTTPConnection("127.0.0.1", edge, timeout=30, source_address=(caller, 0))
        for n, server in enumerate(servers):
            for path in paths:
                slash = theirs[n, path] == "/"
                there = theirs[n, path + "/"] if slash else theirs[n, path]
                there = None if there == "-" else int(there)
                connection.request("GET", path, headers={"Host": server.name})
                answer = connection.getresponse()
                data = answer.read().decode()
                told = f"{path} for {caller}: nginx {there}, mcp-edge {answer.status} {data}\n{server.text}"
                got = None
                if answer.status == 200:
                    port, heard = data.split(" ", 1)
                    got = behind.index(int(port))
                    served += 1
                    assert heard == path, told
                may = there is not None and server.admits(there, caller)
                assert got is None or may, f"open: {told}"
                wanted = there if may and server.is_served(there) else None
                # the edge serves no files: a regular expression for them takes nothing from others
                files = there is not None and not server.is_served(there) and server.places[there]["kind"] == "~ "
                bare = got is None and not all(map(server.is_served, server.places))
                assert n in refusing or files or bare or slash and got is None or got == wanted, f"another: {told}"
    assert served > 300, "most of them are proxied"
