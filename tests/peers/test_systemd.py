"""The unit as it ships: what systemd-analyze says of it, and how it runs under a real systemd, with certbot's and nginx's
files as those leave them."""

import os
import pathlib
import re
import shutil
import stat
import subprocess
import tempfile

import pytest
import systemd
from directory import Directory, free_port, wait
from harness import HERE, START_SECONDS, Process
from test_certificates import tool

UNIT = HERE.parents[1] / "systemd/mcp-edge.service"
LOGROTATE = UNIT.with_name("mcp-edge.logrotate")
EXAMPLES = HERE.parents[1] / "conf/examples"
NAME = "mcp-edge.service"
DOMAIN = "mcp.example.test"
LIVE = f"/etc/letsencrypt/live/{DOMAIN}"
CONFIG = f"""
state_dir: /var/lib/mcp-edge
listeners:
  - address: 127.0.0.1:443
    tls: {{ certificates: [ {{ cert: {LIVE}/fullchain.pem, key: {LIVE}/privkey.pem }} ] }}
routes:
  - host: {DOMAIN}
    upstream: http://127.0.0.1:9
    auth: [ {{ basic: {{ file: /etc/nginx/.htpasswd, cache: off }} }} ]
"""
# What systemd-analyze calls the exposure, times ten; README names it.
EXPOSURE = 18
# Under the unit's settings: what can be seen, written, and reached by handles in place of paths.
PROBE = r"""
import ctypes, errno, os
seen = lambda path: os.path.exists(path)
print("etc", sorted(os.listdir("/etc")))
print("hidden", [path for path in ("/etc/shadow", "/etc/ssh", "/srv/secret", "/var/log/lastlog", "/var/lib/dpkg") if seen(path)])
print("home", [path for path in ("/root", "/home") if seen(path) and os.access(path, os.R_OK) and os.listdir(path)])
def refused(do):
    try: do()
    except OSError as e: return errno.errorcode[e.errno]
    return "done"
print("key", len(open("/etc/letsencrypt/live/mcp.example.test/privkey.pem").read()) > 100)
for path in ("/etc/mcp-edge/x", "/etc/letsencrypt/x", "/usr/x", "/x", "/run/probe/root/x"):
    print("write", path, refused(lambda: open(path, "w")))
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall(304, -100, None, 0)  # open_by_handle_at, which would lead out of the tree
print("handle", errno.errorcode[ctypes.get_errno()])
"""


def offline(*arguments):
    return subprocess.run([tool("systemd-analyze"), *arguments], capture_output=True, text=True, timeout=60)


def test_the_unit_is_well_formed(binary, tmp_path):
    text = UNIT.read_text()
    for word in set(re.findall(r"/usr/bin/mcp-edge (\w+)", text)):
        assert subprocess.run([binary, word, "--help"], capture_output=True).returncode == 0, word
    (tmp_path / NAME).write_text(text.replace("/usr/bin/mcp-edge", binary))
    done = offline("verify", "--man=no", str(tmp_path / NAME))
    about_us = [line for line in (done.stdout + done.stderr).splitlines() if "mcp-edge" in line]
    assert (done.returncode, about_us) == (0, [])


def test_the_unit_exposes_little():
    done = offline("security", "--offline=true", f"--threshold={EXPOSURE}", str(UNIT))
    assert done.returncode == 0, done.stdout


class Certbot:
    """certbot with a folder of its own in the place of /etc/letsencrypt."""

    def __init__(self, folder, directory, certificate):
        self.folder, self.directory, self.ca = folder / "letsencrypt", directory, certificate.ca
        self.rest = ["--config-dir", str(self.folder), "--work-dir", str(folder / "work"), "--logs-dir", str(folder / "logs")]

    def run(self, *arguments):
        standalone = ["--http-01-port", str(self.directory.http), "--http-01-address", "127.0.0.1"]
        done = subprocess.run(
            [tool("certbot"), "-n", *self.rest, *arguments, *standalone, "--server", self.directory.url],
            env={"PATH": "/usr/bin:/bin", "REQUESTS_CA_BUNDLE": self.ca},
            capture_output=True, text=True, timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def issue(self):
        self.run("certonly", "--standalone", "--agree-tos", "-m", "a@example.test", "-d", DOMAIN)

    def renew(self):
        self.run("renew", "--force-renewal", "--no-random-sleep-on-renew")


def mode(path):
    found = os.stat(path)
    return stat.S_IMODE(found.st_mode), found.st_uid


@pytest.fixture(scope="module")
def issued(tmp_path_factory, certificate):
    """A certificate as certbot leaves it: root's alone."""
    folder = tmp_path_factory.mktemp("certbot")
    directory = Directory(folder, certificate, 86400, nonces=True).start()
    certbot = Certbot(folder, directory, certificate)
    certbot.issue()
    live = certbot.folder / "live"
    assert mode(live) == mode(certbot.folder / "archive") == (0o700, 0)
    assert mode(live / DOMAIN / "privkey.pem") == (0o600, 0)
    yield certbot
    directory.end()


@pytest.fixture
def machine(issued, binary, tmp_path):
    """systemd, with the unit and all files in their places; nothing is started."""
    why_not = systemd.missing()
    if why_not:
        pytest.skip(why_not)
    made = systemd.Machine(tmp_path / "machine")
    try:
        root = made.root
        for folder in ("etc/mcp-edge", "etc/nginx", "etc/letsencrypt", "etc/systemd/system", "srv"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        made.bind(issued.folder, "/etc/letsencrypt")
        shutil.copy(binary, root / "usr/bin/mcp-edge")
        shutil.copy(UNIT, root / "etc/systemd/system" / NAME)
        (root / "srv/secret").write_text("nobody's business")
        (root / "etc/mcp-edge/mcp-edge.yaml").write_text(CONFIG)
        password(made, "ann", "-c")
        # nginx's workers run as www-data: what guides have people do
        made.run("chown", "root:www-data", "/etc/nginx/.htpasswd")
        made.run("chmod", "640", "/etc/nginx/.htpasswd")
        made.run("systemctl", "daemon-reload")
        yield made
    finally:
        made.end()


def password(machine, user, *more):
    machine.run("htpasswd", "-b", "-s", *more, "/etc/nginx/.htpasswd", user, f"{user}'s")


def status(machine, user):
    """How a call of this user is answered: 401, or that nobody is behind the edge."""
    url = f"https://{DOMAIN}/mcp"
    done = machine.run(
        "curl", "-sk", "-o", "/dev/null", "-w", "%{http_code}", "--resolve", f"{DOMAIN}:443:127.0.0.1",
        "-u", f"{user}:{user}'s", url, check=False,
    )
    return done.stdout


def challenge(machine):
    """The head of the answer to somebody without a password."""
    return machine.run("curl", "-ski", "--resolve", f"{DOMAIN}:443:127.0.0.1", f"https://{DOMAIN}/mcp").stdout


def serial(machine):
    shown = machine.run("sh", "-c", f"openssl s_client -connect 127.0.0.1:443 -servername {DOMAIN} </dev/null | openssl x509 -noout -serial")
    return shown.stdout.strip()


def serial_of(file):
    return subprocess.run(["openssl", "x509", "-noout", "-serial", "-in", str(file)], capture_output=True, text=True, check=True).stdout.strip()


def start(machine, good=True):
    done = machine.run("systemctl", "start", NAME, check=False)
    assert (done.returncode == 0) == good, machine.journal(NAME)


def without_root(machine):
    """The number of the process, which has two of root's rights and no other."""
    pid = machine.show(NAME, "MainPID")
    facts = dict(re.findall(r"^(\w+):\s+(.*)$", machine.run("cat", f"/proc/{pid}/status").stdout, re.M))
    assert "0" not in facts["Uid"].split() + facts["Gid"].split()
    # CAP_DAC_READ_SEARCH (2) and CAP_NET_BIND_SERVICE (10)
    assert {facts[name] for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb")} == {"0000000000000404"}
    assert facts["NoNewPrivs"] == "1"
    return pid


def test_root_files_are_read_without_root_and_renewals_too(machine, issued):
    start(machine)
    # it has said that it is ready: no waiting here
    assert status(machine, "ann") in ("502", "503")
    pid = without_root(machine)
    assert serial(machine) == serial_of(issued.folder / "live" / DOMAIN / "fullchain.pem")

    before = serial(machine)
    issued.renew()
    assert mode(issued.folder / "live" / DOMAIN / "privkey.pem") == (0o600, 0)
    new = serial_of(issued.folder / "live" / DOMAIN / "fullchain.pem")
    assert new != before
    wait("the renewed certificate is shown", lambda: serial(machine) == new, 20)

    assert status(machine, "bob") == "401"
    password(machine, "bob")
    assert mode(machine.root / "etc/nginx/.htpasswd") == (0o640, 0)
    wait("the new user is let in", lambda: status(machine, "bob") in ("502", "503"), 20)
    assert machine.show(NAME, "MainPID") == pid


def as_nobody(capabilities, *command):
    """What runs this as a user that owns nothing, with these of root's rights."""
    names = ",".join("+" + name.removeprefix("CAP_").lower() for name in capabilities)
    user = ["--reuid=64321", "--regid=64321", "--clear-groups", "--no-new-privs"]
    return ["setpriv", *user, f"--inh-caps=-all,{names}", f"--ambient-caps=-all,{names}", f"--bounding-set=-all,{names}", *command]


@pytest.fixture
def anybodys():
    """A folder that every user may enter, which pytest's are not: what stays closed is certbot's and nginx's."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield pathlib.Path(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_the_capabilities_of_the_unit_are_what_it_takes(binary, issued, anybodys):
    """The same without systemd, for machines where no namespaces can be had."""
    state, live = anybodys / "state", issued.folder / "live" / DOMAIN
    state.mkdir()
    os.chown(state, 64321, 64321)
    run = subprocess.run([tool("htpasswd"), "-b", "-s", "-c", anybodys / ".htpasswd", "ann", "ann's"], capture_output=True)
    assert run.returncode == 0
    shutil.chown(anybodys / ".htpasswd", "root", "www-data")
    os.chmod(anybodys / ".htpasswd", 0o640)
    config = CONFIG.replace(LIVE, str(live)).replace("/etc/nginx", str(anybodys)).replace("/var/lib/mcp-edge", str(state))
    port = free_port()
    file = anybodys / "mcp-edge.yaml"
    file.write_text("admin: off\n" + config.replace(":443", f":{port}"))
    shutil.copy(binary, anybodys / "mcp-edge")
    command = [str(anybodys / "mcp-edge"), "run", "--config", str(file)]
    capabilities = re.search(r"^AmbientCapabilities=(.*)$", UNIT.read_text(), re.M)[1].split()
    assert sorted(capabilities) == ["CAP_DAC_READ_SEARCH", "CAP_NET_BIND_SERVICE"]

    shown = lambda: subprocess.run(
        ["sh", "-c", f"openssl s_client -connect 127.0.0.1:{port} -servername {DOMAIN} </dev/null | openssl x509 -noout -serial"],
        capture_output=True, text=True,
    ).stdout.strip()
    edge = Process(as_nobody(capabilities, *command), name="mcp-edge")
    try:
        edge.wait_line("stderr", lambda line: line.strip() == "mcp-edge: ready", START_SECONDS)
        assert os.stat(f"/proc/{edge.pid}").st_uid == 64321
        assert shown() == serial_of(live / "fullchain.pem")
        issued.renew()
        wait("the renewed certificate is shown", lambda: shown() == serial_of(live / "fullchain.pem"), 20)
    finally:
        edge.end()

    without = subprocess.run(as_nobody(["CAP_NET_BIND_SERVICE"], *command), capture_output=True, text=True, timeout=30)
    assert without.returncode == 2 and "fullchain.pem`: Permission denied" in without.stderr


def test_without_the_capability_the_keys_stay_closed(machine):
    """That the test above would find it."""
    drop_in = machine.root / f"etc/systemd/system/{NAME}.d/less.conf"
    drop_in.parent.mkdir()
    drop_in.write_text("[Service]\nAmbientCapabilities=\nAmbientCapabilities=CAP_NET_BIND_SERVICE\n")
    machine.run("systemctl", "daemon-reload")
    start(machine, good=False)
    assert "Permission denied" in machine.journal(NAME)


def test_it_sees_what_it_needs_and_writes_nothing_else(machine):
    probe = machine.root / "etc/systemd/system/probe.service"
    text = re.sub(r"^Exec\w+=.*\n", "", UNIT.read_text(), flags=re.M).replace("Type=notify", "Type=oneshot")
    text = text.replace("Restart=on-failure\n", "").replace("mcp-edge/root", "probe/root")
    # python3 of the system: its standard library is below /usr
    probe.write_text(text.replace("[Service]", "[Service]\nExecStart=/usr/bin/python3 /etc/mcp-edge/probe.py"))
    (machine.root / "etc/mcp-edge/probe.py").write_text(PROBE)
    machine.run("systemctl", "daemon-reload")
    done = machine.run("systemctl", "start", "probe.service", check=False)
    said = machine.journal("probe.service")
    assert done.returncode == 0, said
    assert re.search(r"etc .*'letsencrypt'.*'mcp-edge'.*'nginx'", said), said
    for line in ("hidden []", "home []", "key True", "handle EPERM"):
        assert line in said, said
    refused = re.findall(r"write \S+ (\w+)", said)
    assert len(refused) == 5 and set(refused) <= {"EROFS", "EACCES"}, said


def test_reload_restart_and_stop(machine):
    start(machine)
    config = machine.root / "etc/mcp-edge/mcp-edge.yaml"
    pid = machine.show(NAME, "MainPID")
    assert "Other realm" not in challenge(machine)
    config.write_text(CONFIG.replace("cache: off", "cache: off, realm: Other realm"))
    machine.run("systemctl", "reload", NAME)
    assert "Other realm" in challenge(machine)
    good = config.read_text()
    config.write_text(good.replace("routes:", "rotues:"))
    assert machine.run("systemctl", "reload", NAME, check=False).returncode != 0
    assert "unknown key `rotues`" in machine.journal(NAME)
    assert (machine.show(NAME, "ActiveState"), machine.show(NAME, "MainPID")) == ("active", pid)
    assert status(machine, "ann") in ("502", "503")

    # a crash is mended, with the sessions' key that was kept
    config.write_text(good)
    keys = lambda: re.findall(r"session keys (\w+)", machine.journal(NAME))
    assert len(keys()) == 1
    machine.run("systemctl", "kill", "-s", "KILL", NAME)
    wait("it is back", lambda: machine.show(NAME, "MainPID") not in (pid, "0") and machine.show(NAME, "ActiveState") == "active", 20)
    assert len(keys()) == 2 and len(set(keys())) == 1
    assert stat.S_IMODE(os.stat(machine.root / "var/lib/private/mcp-edge").st_mode) == 0o700

    machine.run("systemctl", "stop", NAME)
    assert (machine.show(NAME, "ActiveState"), machine.show(NAME, "Result")) == ("inactive", "success")

    # a config that is wrong does not start, is told of, and is not tried again
    told = machine.journal(NAME).count("unknown key `rotues`")
    config.write_text(good.replace("routes:", "rotues:"))
    start(machine, good=False)
    wait("systemd gives up", lambda: machine.show(NAME, "ActiveState") == "failed", 30)
    assert machine.journal(NAME).count("unknown key `rotues`") > told
    assert (machine.show(NAME, "NRestarts"), machine.show(NAME, "ExecMainStatus")) == ("0", "2")


def test_a_fault_that_passes_is_not_the_end(machine):
    taken = "import socket, sys; held = socket.create_server(('127.0.0.1', 443)); print('taken', flush=True); sys.stdin.read()"
    command = machine.command("/usr/bin/python3", "-c", taken)
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "taken\n"
        machine.run("systemctl", "start", "--no-block", NAME)
        # five tries in ten seconds is where systemd gives up by default
        wait("it was tried often", lambda: int(machine.show(NAME, "NRestarts")) > 6 or machine.show(NAME, "ActiveState") == "failed", 30)
    finally:
        other.stdin.close()
        other.wait(10)
    wait("it is there", lambda: machine.show(NAME, "ActiveState") == "active", 10)


@pytest.mark.parametrize("example", ["in-place-of-nginx", "behind-load-balancer"])
def test_the_examples_start(machine, example):
    """Those that one installs on a machine, with the files that they name beside them."""
    folder = machine.root / "etc/mcp-edge"
    shutil.copy(EXAMPLES / f"{example}.yaml", folder / "mcp-edge.yaml")
    shutil.copy(machine.root / "etc/nginx/.htpasswd", folder / ".htpasswd")
    (folder / "session-key").write_text("5" * 64)
    start(machine)
    assert (machine.root / "var/lib/private/mcp-edge/control.sock").is_socket()
    assert machine.run("systemctl", "reload", NAME, check=False).returncode == 0, machine.journal(NAME)


def test_no_example_keeps_its_state_in_the_folder_of_the_config():
    """It is read-only there, under the unit and in the image."""
    named = [line for file in EXAMPLES.glob("*.yaml") for line in file.read_text().splitlines() if line.startswith("state_dir:")]
    assert len(list(EXAMPLES.glob("*.yaml"))) > 5 and [line for line in named if not line.startswith("state_dir: /")] == []


def test_the_access_log_is_turned_as_logrotate_does_it(machine):
    config = machine.root / "etc/mcp-edge/mcp-edge.yaml"
    log = machine.root / "var/log/private/mcp-edge/access.log"
    config.write_text(CONFIG + "access_log: /var/log/mcp-edge/access.log\n")
    start(machine)
    # what journald goes by, for those who log to stdout
    limits = [os.readlink(machine.root / f"run/systemd/units/log-rate-limit-{what}:{NAME}") for what in ("interval", "burst")]
    assert limits == ["1000000", "1000000"]  # microseconds, lines
    lines = lambda file: file.read_text().count("\n") if file.exists() else -1
    status(machine, "ann")
    wait("the call is in the log", lambda: lines(log) == 1, 10)
    assert stat.S_IMODE(os.stat(log).st_mode) == 0o600

    text = LOGROTATE.read_text()
    assert f"\n/{log.relative_to(machine.root)} {{\n".replace("/private", "") in text
    log.rename(log.with_suffix(".log.1"))
    machine.run("sh", "-c", re.search(r"postrotate\n(.*?)\n *endscript", text, re.S)[1])
    wait("there is a new file", lambda: lines(log) == 0, 10)
    assert stat.S_IMODE(os.stat(log).st_mode) == 0o600
    status(machine, "ann")
    wait("the next call is in the new file", lambda: (lines(log), lines(log.with_suffix(".log.1"))) == (1, 1), 10)
    assert machine.show(NAME, "ActiveState") == "active"


@pytest.mark.skipif(not shutil.which("logrotate", path="/usr/sbin:/usr/bin"), reason="logrotate is not there")
def test_logrotate_reads_its_file(tmp_path):
    (tmp_path / "access.log").write_text("a line\n")
    file = tmp_path / "mcp-edge"
    file.write_text(LOGROTATE.read_text().replace("/var/log/mcp-edge/", f"{tmp_path}/"))
    file.chmod(0o644)
    program = shutil.which("logrotate", path="/usr/sbin:/usr/bin")
    done = subprocess.run([program, "-d", "-s", tmp_path / "state", file], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0 and "error" not in done.stderr.lower(), done.stderr
    assert "access.log" in done.stderr, done.stderr


def test_another_binary_takes_over(machine, binary):
    start(machine)
    old = without_root(machine)
    # as packages do it: another file in the place of the one that runs
    program = machine.root / "usr/bin/mcp-edge"
    shutil.copy(binary, program.with_suffix(".new"))
    program.with_suffix(".new").rename(program)
    machine.run("mcp-edge", "upgrade", "--config", "/etc/mcp-edge/mcp-edge.yaml")
    wait("systemd knows the new process", lambda: machine.show(NAME, "MainPID") not in (old, "0"), 20)
    new = without_root(machine)
    assert status(machine, "ann") in ("502", "503")
    wait("the old process has ended", lambda: not (machine.root / f"proc/{old}").exists(), 20)
    assert (machine.show(NAME, "ActiveState"), machine.show(NAME, "MainPID"), machine.show(NAME, "NRestarts")) == ("active", new, "0")
    assert machine.run("systemctl", "reload", NAME, check=False).returncode == 0, machine.journal(NAME)
    # systemd looks after the new process as after the old one
    machine.run("systemctl", "kill", "-s", "KILL", NAME)
    wait("it is back", lambda: machine.show(NAME, "MainPID") not in (new, "0") and machine.show(NAME, "ActiveState") == "active", 20)
    machine.run("systemctl", "stop", NAME)
    assert machine.show(NAME, "Result") == "success"
