"""In: nothing but root's rights. Out: a real systemd as the first process of namespaces of its own, over a copy-on-write
view of this machine with a loopback network of its own. Nothing of it is left, and nothing outside it changes."""

import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import time

SYSTEMD = "/lib/systemd/systemd"
TARGET = "peers.target"
# In the new namespaces: an overlay over /, the file systems that systemd expects, and then systemd itself.
BOOT = f"""
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs "$1"
mkdir "$1/up" "$1/work" "$1/root"
mount -t overlay overlay -o lowerdir=/,upperdir="$1/up",workdir="$1/work" "$1/root"
cd "$1/root"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
mount --rbind /dev dev
ip link set lo up
printf '[Unit]\\nDescription=nothing but what a test starts\\n' > etc/systemd/system/{TARGET}
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot . {SYSTEMD} --unit={TARGET} --show-status=no
"""
NAMESPACES = ["--mount", "--pid", "--uts", "--ipc", "--cgroup", "--net"]


def missing():
    """Why it cannot be had here; empty when it can."""
    if os.geteuid() != 0:
        return "a systemd of its own needs root"
    if not os.path.exists(SYSTEMD) or not shutil.which("unshare"):
        return "no systemd, or no unshare"
    tried = subprocess.run(["unshare", *NAMESPACES, "--fork", "mount", "-t", "tmpfs", "none", "/tmp"], capture_output=True, text=True)
    return f"no namespaces here: {tried.stderr.strip()}" if tried.returncode else ""


class Machine:
    """A booted systemd. `root` is its file system, as seen from here."""

    def __init__(self, folder):
        folder = pathlib.Path(folder)
        folder.mkdir()
        self.folder = folder
        command = ["unshare", *NAMESPACES, "--fork", "--kill-child", "sh", "-c", BOOT, "sh", str(folder)]
        self.log = open(folder.with_suffix(".log"), "w+")
        self.shell = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        self.pid = None
        try:
            self._wait_booted()
        except BaseException:
            self.end()
            raise

    def _wait_booted(self):
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and self.shell.poll() is None:
            with contextlib.suppress(OSError, ValueError):
                children = pathlib.Path(f"/proc/{self.shell.pid}/task/{self.shell.pid}/children").read_text().split()
                if children and os.readlink(f"/proc/{children[0]}/exe").endswith("/systemd"):
                    self.pid = int(children[0])
                    if self.run("systemctl", "is-active", TARGET, check=False).stdout.strip() == "active":
                        return
            time.sleep(0.05)
        raise AssertionError(f"systemd did not come up\n{self.said()}")

    @property
    def root(self):
        return pathlib.Path(f"/proc/{self.pid}/root")

    def command(self, *arguments):
        """What runs these inside, as root."""
        inside = ["--mount", "--pid", "--uts", "--ipc", "--net", "--cgroup", f"--root=/proc/{self.pid}/root", "--wd=/"]
        return ["nsenter", "-t", str(self.pid), *inside, *arguments]

    def run(self, *arguments, check=True, **options):
        done = subprocess.run(self.command(*arguments), capture_output=True, text=True, timeout=120, **options)
        assert not check or done.returncode == 0, f"{arguments}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def show(self, unit, name):
        return self.run("systemctl", "show", "--value", "-p", name, unit).stdout.strip()

    def journal(self, unit):
        """What the unit and systemd have said of it. Without a journal daemon both are on our console's log."""
        return self.run("journalctl", "--no-pager", "-o", "cat", "-u", unit, check=False).stdout

    def bind(self, folder, place):
        """Shows a folder of this machine at a place inside, as it is and as it changes."""
        outside = ["nsenter", "-t", str(self.pid), "--mount", "mount", "--bind", str(folder), f"{self.folder}/root{place}"]
        subprocess.run(outside, check=True)

    def said(self):
        self.log.flush()
        return pathlib.Path(self.log.name).read_text()

    def end(self):
        if self.pid:
            # the first process of the namespace: with it go all others
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        elif self.shell.poll() is None:
            self.shell.kill()
        self.shell.wait(20)
        self.log.close()
