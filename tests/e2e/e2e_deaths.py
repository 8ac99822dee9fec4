"""Sandboxes of which the VMM or the supervisor is killed at a random moment: of a restore, by either way, of a snapshot that the
guest goes on after, and of a pause. With Firecracker's double, hundreds of times: tests/torture/death_test.cc.
STASIS_TORTURE_DEATHS=N (default 36) STASIS_TORTURE_SEED=S"""
import contextlib
import os
import random
import signal
import threading
import time
import unittest

from harness import CommandFailed, Stasis, StasisTestCase

DEATHS = int(os.environ.get("STASIS_TORTURE_DEATHS", "36"))
SEED = int(os.environ.get("STASIS_TORTURE_SEED", "1"))
# Seconds within which each is killed: longer than a restore, a snapshot or a pause takes here.
LONGEST = 0.12


class DeathsTest(StasisTestCase):
    @classmethod
    def setUpClass(cls):
        cls.stasis = Stasis(options=("--spares", "0")).start()  # one that dies while it becomes a sandbox is replaced

    def setUp(self):
        first = self.create()
        self.digest = self.stasis.start_counter(first)
        self.stasis.json("snapshot", "create", first, "deaths")
        self.stasis.cli("rm", first)
        self.seen = {one["id"] for one in self.listed()}

    def listed(self):
        return self.stasis.json("ls", "--all")["sandboxes"]

    def begin(self, *command):
        """Runs it beside the caller. What it says is in the dictionary that is returned, once its thread has ended."""
        outcome = {}

        def run():
            try:
                outcome["done"] = self.stasis.json(*command)
            except CommandFailed as failure:
                outcome["error"] = failure.error

        thread = threading.Thread(target=run)
        thread.start()
        return thread, outcome

    def kill(self, sandbox, victim, thread):
        """As soon as there is one."""
        while victim not in (pids := self.stasis.metrics_pids(sandbox)):
            if not thread.is_alive():
                return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(pids[victim], signal.SIGKILL)
        return True

    def new_sandbox(self, thread):
        while thread.is_alive():
            for entry in (self.stasis.state / "sandboxes").iterdir():
                if entry.name not in self.seen and (entry / "vmm.log").exists():
                    return entry.name
        return None

    def begin_restore(self, way):
        thread, outcome = self.begin("create", "--template", "deaths", "--restore", way)
        sandbox = self.new_sandbox(thread)
        return sandbox, thread, outcome

    def assert_it_ended(self, sandbox, victim, outcome):
        self.stasis.wait_until(lambda: self.stasis.metrics_pids(sandbox) == {}, f"the processes of {sandbox} to go")
        self.stasis.wait_until(lambda: self.state(sandbox) in ("error", "paused", None), f"the end of {sandbox}: {outcome}")
        state = self.state(sandbox)
        if state == "error":
            reason = self.stasis.rest("GET", f"/v1/sandboxes/{sandbox}")[1]["reason"]
            self.assertIn("signal 9" if victim == "vmm" else "supervisor", reason)
        if state == "paused":  # before it was killed
            self.stasis.json("resume", sandbox)
            self.assertEqual(self.stasis.checksum(sandbox), self.digest)
        if state is None:  # a restore that failed
            self.assertIn("signal 9" if victim == "vmm" else "supervisor", outcome["error"]["message"])

    def state(self, sandbox):
        return next((one["state"] for one in self.listed() if one["id"] == sandbox), None)

    def assert_restores(self, name):
        clone = self.create("--template", name)
        self.assertEqual(self.stasis.checksum(clone), self.digest)
        self.stasis.cli("rm", clone)

    def die(self, number, dice):
        way = ("uffd", "mapped")[number % 2]
        victim = ("vmm", "supervisor")[number // 2 % 2]
        phase = ("restore", "snapshot", "pause")[number // 4 % 3]
        moment = dice.uniform(0, LONGEST)
        name = f"of-{number}"
        with self.subTest(seed=SEED, number=number, way=way, victim=victim, phase=phase, moment=moment):
            if phase == "restore":
                sandbox, thread, outcome = self.begin_restore(way)
            else:
                sandbox = self.create("--template", "deaths", "--restore", way)
                thread, outcome = self.begin(*(("pause", sandbox) if phase == "pause" else ("snapshot", "create", sandbox, name)))
            time.sleep(moment)  # the time is what is tried out
            self.assertTrue(sandbox is None or self.kill(sandbox, victim, thread) or phase == "pause", outcome)
            thread.join(60)
            self.assertFalse(thread.is_alive(), "nobody answers")
            if sandbox is not None:
                self.assert_it_ended(sandbox, victim, outcome)
            if any(one["name"] == name for one in self.stasis.json("snapshot", "ls")["snapshots"]):
                self.assert_restores(name)
                self.stasis.cli("snapshot", "rm", name)
            self.seen.add(sandbox)

    def test_a_part_that_dies_at_any_moment_costs_that_sandbox_only(self):
        dice = random.Random(SEED)
        for number in range(DEATHS):
            self.die(number, dice)
        self.assert_restores("deaths")


if __name__ == "__main__":
    unittest.main()
