"""In: a certificate for Pebble itself. Out: a running ACME directory that sends its challenges to a port of 127.0.0.1."""

import json
import pathlib
import shutil
import socket
import subprocess
import time

from harness import START_SECONDS, Process


def free_port():
    """A port that was free a moment ago; Pebble's and challtestsrv's are configured, not chosen by the system."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait(what, ask, seconds):
    """Asks until the answer is true, and gives it."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        answer = ask()
        if answer:
            return answer
        time.sleep(0.1)
    raise AssertionError(f"{what}: not in {seconds} s")


class Directory:
    """Pebble, and a DNS server that gives 127.0.0.1 for every name. Its certificates live for so many seconds.

    5 % of good nonces are refused, as Pebble does by itself: clients have to stand that. Debian's certbot asks
    again but once, and now and then meets two in a row: where it is not what is looked at, `nonces` lets all pass."""

    def __init__(self, folder, certificate, life, nonces=False):
        self.nonces = nonces
        for program in ("pebble", "pebble-challtestsrv"):
            assert shutil.which(program), f"{program} is missing: apt-get install pebble"
        self.folder, self.certificate, self.life = pathlib.Path(folder), certificate, life
        self.port, self.management, self.http = free_port(), free_port(), free_port()
        dns, other = free_port(), free_port()
        self.dns = dns
        self.names = Process(
            ["pebble-challtestsrv", "-defaultIPv4", "127.0.0.1", "-defaultIPv6", "", "-dns01", f"127.0.0.1:{dns}"]
            + ["-management", f"127.0.0.1:{other}", "-http01", "", "-https01", "", "-tlsalpn01", ""],
            name="challtestsrv",
        )
        self.process = None

    def start(self):
        config = {
            "pebble": {
                "listenAddress": f"127.0.0.1:{self.port}",
                "managementListenAddress": f"127.0.0.1:{self.management}",
                "certificate": self.certificate.cert,
                "privateKey": self.certificate.key,
                "httpPort": self.http,
                "tlsPort": free_port(),
                "certificateValidityPeriod": self.life,
            }
        }
        file = self.folder / "pebble.json"
        file.write_text(json.dumps(config))
        env = {"PEBBLE_VA_NOSLEEP": "1"}
        if self.nonces:
            env["PEBBLE_WFE_NONCEREJECT"] = "0"
        command = ["pebble", "-config", str(file), "-dnsserver", f"127.0.0.1:{self.dns}"]
        self.process = Process(command, env, name="pebble")
        wait("Pebble listens", self.listens, START_SECONDS)
        return self

    def listens(self):
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    @property
    def url(self):
        # by name: the library behind the edge checks Pebble's certificate by name
        return f"https://localhost:{self.port}/dir"

    def root(self):
        """The CA of the certificates that it issues now; another one after each start."""
        text = subprocess.run(
            ["curl", "-sS", "--cacert", self.certificate.ca, f"https://localhost:{self.management}/roots/0"],
            check=True, capture_output=True, text=True,
        ).stdout
        return text

    def stop(self):
        if self.process:
            self.process.end()
            self.process = None

    def end(self):
        self.stop()
        self.names.end()
