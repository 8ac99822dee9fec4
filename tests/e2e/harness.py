"""Runs a whole Stasis for a test: `stasis up` on a state directory of its own, the command line, the REST API.

Every test class starts from nothing and ends with a check that nothing is left. Environment: STASIS_BIN (directory of the
programs), STASIS_IMAGE (the base image's directory).
"""
import contextlib
import http.client
import json
import mmap
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.request
from pathlib import Path

MIB = 1 << 20
ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "demo"))
from leftovers import leftovers_of  # noqa: E402

BIN = Path(os.environ.get("STASIS_BIN", ROOT / "build/dev/bin"))
IMAGE = Path(os.environ.get("STASIS_IMAGE", ROOT / "build/image"))
COUNTER = ROOT / "demo/counter.py"


class CommandFailed(Exception):
    """A `stasis` command that failed: exit status, and the error object that it printed."""

    def __init__(self, command, status, output, error):
        super().__init__(f"{command} ended with {status}: {error or output}")
        self.status = status
        with contextlib.suppress(ValueError, KeyError, TypeError):
            self.error = json.loads(error)["error"]


class Stasis:
    """One running `stasis up`."""

    def __init__(self, state=None, image=IMAGE, prefix=(), options=()):
        self.owned = state is None
        self.state = Path(state or tempfile.mkdtemp(prefix="stasis-e2e-"))
        self.image = image
        self.prefix = list(prefix)
        self.options = list(options)
        self.log = open(self.state.parent / f"{self.state.name}.log", "a")
        self.up = None

    def start(self):
        command = [*self.prefix, str(BIN / "stasis"), "up", "--state-dir", str(self.state), "--image", f"base={self.image}",
                   *self.options]
        self.up = subprocess.Popen(command, stdout=self.log, stderr=subprocess.STDOUT)
        self.wait_until(self.ready, "stasis up to be ready", 120)
        return self

    def ready(self):
        assert self.up.poll() is None, f"stasis up ended: {Path(self.log.name).read_text()}"
        with contextlib.suppress(Exception):
            return any(one["name"] == "base" for one in self.json("snapshot", "ls")["snapshots"])
        return False

    def stop(self):
        self.up.send_signal(signal.SIGTERM)
        assert self.up.wait(timeout=60) == 0, f"stasis up ended with {self.up.returncode}"

    def remove(self):
        self.log.close()
        Path(self.log.name).unlink()
        if self.owned:
            shutil.rmtree(self.state)

    def cli(self, *arguments, stdin=None):
        command = [str(BIN / "stasis"), "--state-dir", str(self.state), *map(str, arguments)]
        result = subprocess.run(command, input=stdin, capture_output=True, timeout=600)
        if result.returncode != 0:
            raise CommandFailed(command[3:], result.returncode, result.stdout.decode(errors="replace"),
                                result.stderr.decode(errors="replace"))
        return result.stdout

    def json(self, *arguments):
        return json.loads(self.cli("--json", *arguments))

    def guest(self, sandbox, shell_line):
        return self.cli("exec", sandbox, "--", "/bin/bash", "-c", shell_line).decode().strip()

    def rest(self, method, path, body=None):
        """Status and JSON of one REST call."""
        server = json.loads((self.state / "server.json").read_text())
        connection = http.client.HTTPConnection(server["url"].removeprefix("http://").rstrip("/"), timeout=600)
        token = (self.state / "api-token").read_text().strip()
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        connection.request(method, path, json.dumps(body) if body is not None else None, headers)
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        return answer.status, json.loads(text) if text else None

    def metrics(self):
        """The text of /metrics."""
        server = json.loads((self.state / "server.json").read_text())
        with urllib.request.urlopen(server["url"].rstrip("/") + "/metrics", timeout=60) as answer:
            return answer.read().decode()

    def spare_pids(self):
        """Pids of the supervisors that wait for a sandbox."""
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and f"{self.state}/spares/" in os.readlink(entry / "fd/1"):
                    found.append(int(entry.name))
        return found

    def wait_for_spare(self, memory):
        """Until a VMM of this shape (MiB) waits for a snapshot."""
        def ready():
            shapes = [json.loads(file.read_text())["memory_mib"] for file in (self.state / "spares").glob("*/spare.json")]
            return shapes == [memory] and "\nstasis_spares 1\n" in self.metrics()
        self.wait_until(ready, f"a spare with {memory} MiB")

    def start_counter(self, sandbox):
        self.cli("cp", COUNTER, f"{sandbox}:/root/counter.py")
        self.guest(sandbox, "setsid python3 /root/counter.py >/run/counter.log 2>&1 </dev/null & "
                            "for i in $(seq 1200); do [ -e /run/counter ] && exit 0; sleep 0.05; done; exit 1")
        return self.guest(sandbox, "cat /run/checksum")

    def counter(self, sandbox):
        return int(self.guest(sandbox, "cat /run/counter"))

    def checksum(self, sandbox):
        return self.guest(sandbox, "touch /run/ask; for i in $(seq 600); do [ -e /run/ask ] || break; sleep 0.05; done; cat /run/checksum")

    def state_of(self, sandbox):
        return self.rest("GET", f"/v1/sandboxes/{sandbox}")[1]["state"]

    def metrics_pids(self, sandbox):
        """Pids of a sandbox's supervisor and VMM, found by the logs in its directory that they write to: a spare that became it
        has another directory in its command line."""
        logs = {f"{self.state}/sandboxes/{sandbox}/{name}.log": name for name in ("supervisor", "vmm")}
        found = {}
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                output = os.readlink(entry / "fd/1") if entry.name.isdigit() else ""
                for log, name in logs.items():
                    if output.endswith(log):  # in a chroot, the path begins with the host's
                        found[name] = int(entry.name)
        return found

    def child_pid(self, word):
        """Pid of the agent or the server that `stasis up` runs."""
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                command = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdigit() else []
                if word.encode() in command and str(self.state).encode() in b" ".join(command) and b"up" not in command:
                    return int(entry.name)
        raise AssertionError(f"there is no {word} process")

    def wait_until(self, condition, what, seconds=60):
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
            time.sleep(0.05)


def guest_memory(vmm, layers, size):
    """What of a mapped guest memory of so many bytes is in the host's memory, and of that what no other clone shares and
    what are huge pages of a layer. From smaps; where it begins follows from any layer in it, since a layer has each byte at its own offset."""
    mappings = []
    for line in Path(f"/proc/{vmm}/smaps").read_text().splitlines():
        words = line.split()
        if "-" in words[0] and ":" not in words[0]:
            start, end = (int(part, 16) for part in words[0].split("-"))
            layer = len(words) > 5 and str(layers) in words[5]  # in a chroot, the path is the host's
            mappings.append({"start": start, "end": end, "guest": start - int(words[2], 16) if layer else None, "resident": 0, "own": 0, "huge": 0})
        elif words[0] == "Rss:":
            mappings[-1]["resident"] += int(words[1]) << 10
        elif words[0] in ("Anonymous:", "Swap:"):
            mappings[-1]["own"] += int(words[1]) << 10
        elif words[0] == "FilePmdMapped:":
            mappings[-1]["huge"] += int(words[1]) << 10
    begins = {mapping["guest"] for mapping in mappings if mapping["guest"] is not None}
    assert len(begins) == 1, f"{len(begins)} mapped memories in {vmm}"
    begin = begins.pop()
    inside = [mapping for mapping in mappings if mapping["start"] >= begin and mapping["end"] <= begin + size]
    assert sum(mapping["end"] - mapping["start"] for mapping in inside) == size, "guest memory has neighbours of its kind"
    return {key: sum(mapping[key] for mapping in inside) for key in ("resident", "own", "huge")}


def has_huge_folios(directory):
    """Whether a file there that is written in pieces of 2 MiB is mapped by huge pages."""
    with tempfile.TemporaryFile(dir=directory) as file:
        for _ in range(4):
            os.write(file.fileno(), bytes(2 * MIB))
        with mmap.mmap(file.fileno(), 8 * MIB, mmap.MAP_PRIVATE) as mapping:
            _ = [mapping[at] for at in range(0, 8 * MIB, 4096)]
            return re.search(r"^FilePmdMapped: +0 kB", Path("/proc/self/smaps_rollup").read_text(), re.MULTILINE) is None


class StasisTestCase(unittest.TestCase):
    """One Stasis for the class; each test removes its sandboxes and leaves nothing."""

    @classmethod
    def setUpClass(cls):
        cls.stasis = Stasis().start()

    @classmethod
    def tearDownClass(cls):
        cls.stasis.stop()
        left = leftovers_of(cls.stasis.state)
        cls.stasis.remove()
        assert not left, f"left behind: {left}"

    def tearDown(self):
        for sandbox in self.stasis.json("ls", "--all")["sandboxes"]:
            if sandbox["state"] != "stopped":
                self.stasis.cli("rm", sandbox["id"])
        for snapshot in self.stasis.json("snapshot", "ls")["snapshots"]:
            if snapshot["type"] == "snapshot":
                self.stasis.cli("snapshot", "rm", snapshot["name"])

    def create(self, *arguments):
        return self.stasis.json("create", *(arguments or ("--template", "base", "--memory", "256")))["id"]

    def assert_refused(self, code, *arguments):
        """The command fails with this code, and says what was wrong."""
        with self.assertRaises(CommandFailed) as caught:
            self.stasis.cli("--json", *arguments)
        self.assertEqual(caught.exception.error["code"], code, caught.exception.error)
        self.assertTrue(caught.exception.error["message"])
        return caught.exception.error
