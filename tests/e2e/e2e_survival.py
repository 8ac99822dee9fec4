"""What outlives what: agents and servers that are killed, VMMs and supervisors that die."""
import os
import signal
import unittest

from harness import StasisTestCase


class SurvivalTest(StasisTestCase):
    def test_a_killed_agent_comes_back_and_adopts_its_sandboxes(self):
        sandbox = self.create()
        digest = self.stasis.start_counter(sandbox)
        before = self.stasis.metrics_pids(sandbox)
        counted = self.stasis.counter(sandbox)
        agent = self.stasis.child_pid("agent")
        os.kill(agent, signal.SIGKILL)
        self.stasis.wait_until(lambda: self.restarted("agent", agent), "a new agent")
        self.stasis.wait_until(lambda: self.execs(sandbox), "the sandbox to be reachable")
        self.assertEqual(self.stasis.metrics_pids(sandbox), before)
        self.assertGreaterEqual(self.stasis.counter(sandbox), counted)
        self.stasis.json("pause", sandbox)
        self.stasis.json("resume", sandbox)
        self.assertEqual(self.stasis.checksum(sandbox), digest)

    def test_a_killed_agent_takes_its_spares_along_but_not_what_they_became(self):
        sandbox = self.create("--cold", "--memory", "272")
        self.stasis.json("pause", sandbox)
        self.stasis.json("resume", sandbox)
        self.stasis.wait_for_spare(272)
        self.stasis.json("pause", sandbox)
        self.assertTrue(self.stasis.json("resume", sandbox)["restore"]["spare"])
        before = self.stasis.metrics_pids(sandbox)
        self.assertEqual(len(before), 2)
        self.stasis.wait_for_spare(272)
        spares = self.stasis.spare_pids()
        self.assertTrue(spares)
        agent = self.stasis.child_pid("agent")
        os.kill(agent, signal.SIGKILL)
        self.stasis.wait_until(lambda: self.restarted("agent", agent), "a new agent")
        self.stasis.wait_until(lambda: self.execs(sandbox), "the sandbox to be reachable")
        self.assertEqual(self.stasis.metrics_pids(sandbox), before)
        self.stasis.wait_until(lambda: self.stasis.spare_pids() == [], "the spares to go")
        self.assertEqual(list((self.stasis.state / "spares").iterdir()), [])
        os.kill(before["vmm"], signal.SIGKILL)
        self.stasis.wait_until(lambda: self.stasis.state_of(sandbox) == "error", "state error")
        self.assertIn("signal 9", self.stasis.rest("GET", f"/v1/sandboxes/{sandbox}")[1]["reason"])

    def test_a_killed_server_comes_back_and_knows_everything(self):
        sandbox = self.create()
        server = self.stasis.child_pid("server")
        os.kill(server, signal.SIGKILL)
        self.stasis.wait_until(lambda: self.restarted("server", server), "a new server")
        self.stasis.wait_until(lambda: self.execs(sandbox), "the sandbox to be reachable")
        self.assertEqual(self.stasis.state_of(sandbox), "running")

    def test_stopping_and_starting_everything_leaves_the_sandbox_alone(self):
        sandbox = self.create()
        before = self.stasis.metrics_pids(sandbox)
        self.stasis.stop()
        self.assertEqual(self.stasis.metrics_pids(sandbox), before)
        self.stasis.start()
        self.assertEqual(self.stasis.guest(sandbox, "echo alive"), "alive")

    def test_a_vmm_that_dies_is_an_error_with_its_reason(self):
        sandbox = self.create()
        os.kill(self.stasis.metrics_pids(sandbox)["vmm"], signal.SIGKILL)
        self.stasis.wait_until(lambda: self.stasis.state_of(sandbox) == "error", "state error")
        reason = self.stasis.rest("GET", f"/v1/sandboxes/{sandbox}")[1]["reason"]
        self.assertIn("signal 9", reason)
        self.stasis.wait_until(lambda: self.stasis.metrics_pids(sandbox) == {}, "its processes to go")

    def test_a_supervisor_that_dies_takes_its_vmm_along(self):
        sandbox = self.create()
        pids = self.stasis.metrics_pids(sandbox)
        os.kill(pids["supervisor"], signal.SIGKILL)
        self.stasis.wait_until(lambda: not os.path.exists(f"/proc/{pids['vmm']}"), "the VMM to go")
        self.stasis.wait_until(lambda: self.stasis.state_of(sandbox) == "error", "state error")

    def test_a_guest_that_powers_off_is_told_as_such(self):
        sandbox = self.create()
        self.stasis.rest("POST", f"/v1/sandboxes/{sandbox}/exec", {"command": ["/bin/sh", "-c", "kill -TERM 1"]})
        self.stasis.wait_until(lambda: self.stasis.state_of(sandbox) in ("error", "stopped"), "the sandbox to end")
        self.assertIn("powered off", self.stasis.rest("GET", f"/v1/sandboxes/{sandbox}")[1]["reason"])

    def test_a_lifetime_ends_the_sandbox(self):
        sandbox = self.create("--template", "base", "--memory", "256", "--timeout", "8")
        self.stasis.wait_until(lambda: self.stasis.state_of(sandbox) == "stopped", "the timeout", 90)
        self.assertEqual(self.stasis.rest("GET", f"/v1/sandboxes/{sandbox}")[1]["reason"], "timeout")

    def restarted(self, word, old_pid):
        try:
            return self.stasis.child_pid(word) != old_pid
        except AssertionError:
            return False

    def execs(self, sandbox):
        status, answer = 0, None
        try:
            status, answer = self.stasis.rest("POST", f"/v1/sandboxes/{sandbox}/exec", {"command": ["/bin/true"]})
        except (OSError, ValueError):
            return False
        return status == 200 and answer["exit_code"] == 0


if __name__ == "__main__":
    unittest.main()
