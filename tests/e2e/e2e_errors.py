"""Bad input, wrong states, races and full disks: a clear error, the sandbox in a true state, nothing left behind."""
import subprocess
import tempfile
import threading
import unittest
from pathlib import Path

from harness import Stasis, StasisTestCase, leftovers_of


class BadInputTest(StasisTestCase):
    def test_unknown_ids_and_names(self):
        for command in (["pause", "nosuchsandbox"], ["resume", "nosuchsandbox"], ["exec", "nosuchsandbox", "--", "true"],
                        ["rm", "nosuchsandbox"], ["snapshot", "create", "nosuchsandbox", "name"], ["snapshot", "rm", "nosuchname"],
                        ["create", "--template", "nosuchtemplate"]):
            self.assert_refused("not_found", *command)

    def test_names_with_slashes_and_dots(self):
        sandbox = self.create()
        for name in ("../evil", "a/b", "..", "a..b", ".hidden", "UPPER", "x" * 64, ""):
            status, answer = self.stasis.rest("POST", "/v1/snapshots", {"sandbox_id": sandbox, "name": name})
            self.assertEqual((status, answer["error"]["code"]), (400, "invalid_argument"), name)

    def test_shapes_that_cannot_be(self):
        for body in ({"memory_mb": 1}, {"vcpus": 0}, {"vcpus": 1000}, {"memory_mb": "much"}, {"disk_mb": 1}, {"nonsense": 1}):
            status, answer = self.stasis.rest("POST", "/v1/sandboxes", {"template": "base", **body})
            self.assertEqual((status, answer["error"]["code"]), (400, "invalid_argument"), body)

    def test_wrong_states(self):
        sandbox = self.create()
        self.assert_refused("failed_precondition", "resume", sandbox)
        self.stasis.json("pause", sandbox)
        self.assert_refused("failed_precondition", "pause", sandbox)
        self.assert_refused("failed_precondition", "exec", sandbox, "--", "true")

    def test_a_snapshots_shape_is_its_own(self):
        sandbox = self.create()
        self.stasis.json("snapshot", "create", sandbox, "fixed")
        for change in (["--memory", "512"], ["--vcpus", "2"], ["--disk", "4096"]):
            error = self.assert_refused("invalid_argument", "create", "--template", "fixed", *change)
            self.assertTrue(error["remedy"])
        clone = self.stasis.json("create", "--template", "fixed", "--memory", "256")
        self.assertEqual(clone["memory_mb"], 256)

    def test_a_template_in_use_can_be_overwritten_and_its_clones_live_on(self):
        sandbox = self.create()
        self.stasis.guest(sandbox, "echo one > /dev/shm/which")
        self.stasis.json("snapshot", "create", sandbox, "moving")
        old = self.create("--template", "moving")
        self.stasis.guest(sandbox, "echo two > /dev/shm/which")
        self.assert_refused("already_exists", "snapshot", "create", sandbox, "moving")
        self.stasis.json("snapshot", "create", sandbox, "moving", "--overwrite")
        new = self.create("--template", "moving")
        self.assertEqual([self.stasis.guest(one, "cat /dev/shm/which") for one in (old, new)], ["one", "two"])
        self.stasis.json("pause", old)
        self.stasis.json("resume", old)
        self.assertEqual(self.stasis.guest(old, "cat /dev/shm/which"), "one")

    def test_two_pauses_at_once(self):
        sandbox = self.create()
        answers = self.at_once([("POST", f"/v1/sandboxes/{sandbox}/pause")] * 2)
        self.assertEqual(sorted(status for status, _ in answers), [200, 409])
        self.assertEqual(self.stasis.state_of(sandbox), "paused")
        self.stasis.json("resume", sandbox)
        self.assertEqual(self.stasis.guest(sandbox, "echo alive"), "alive")

    def test_pause_and_destroy_at_once(self):
        for _ in range(3):
            sandbox = self.create()
            self.at_once([("POST", f"/v1/sandboxes/{sandbox}/pause"), ("DELETE", f"/v1/sandboxes/{sandbox}")])
            # Whoever won: it can be destroyed (again), and then nothing of it is left.
            self.stasis.rest("DELETE", f"/v1/sandboxes/{sandbox}")
            self.stasis.wait_until(lambda s=sandbox: self.stasis.metrics_pids(s) == {}, "its processes to go")
            self.assertFalse((self.stasis.state / "sandboxes" / sandbox).exists())

    def at_once(self, calls):
        answers = [None] * len(calls)

        def call(index):
            answers[index] = self.stasis.rest(*calls[index])

        threads = [threading.Thread(target=call, args=(i,)) for i in range(len(calls))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return answers


class FullDiskTest(unittest.TestCase):
    def test_a_pause_that_finds_the_disk_full_leaves_the_sandbox_running(self):
        mount = Path(tempfile.mkdtemp(prefix="stasis-full-"))
        state = mount / "state"
        # Room for the image and a little more, but not for a guest's memory as well.
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1200m", "stasis-test", mount], check=True)
        state.mkdir()
        stasis = Stasis(state=state)
        try:
            stasis.start()
            sandbox = stasis.json("create", "--template", "base", "--memory", "256", "--cold")["id"]
            stasis.guest(sandbox, "echo here > /dev/shm/mark")
            filler = state / "filler"
            self.fill(filler)
            status, answer = stasis.rest("POST", f"/v1/sandboxes/{sandbox}/pause")
            self.assertEqual((status, answer["error"]["code"]), (507, "resource_exhausted"))
            self.assertTrue(answer["error"]["remedy"])
            self.assertEqual(stasis.state_of(sandbox), "running")
            self.assertEqual(stasis.guest(sandbox, "cat /dev/shm/mark"), "here")
            filler.unlink()
            stasis.json("pause", sandbox)
            stasis.json("resume", sandbox)
            self.assertEqual(stasis.guest(sandbox, "cat /dev/shm/mark"), "here")
            stasis.cli("rm", sandbox)
            stasis.stop()
            self.assertEqual(leftovers_of(state), [])
        finally:
            if stasis.up.poll() is None:
                stasis.up.kill()
            stasis.remove()
            subprocess.run(["umount", "-l", mount], check=True)
            mount.rmdir()

    def fill(self, path):
        """Leaves 8 MiB: enough for the database and records, too little for the guest's memory."""
        free = int(subprocess.run(["stat", "-f", "-c", "%a", path.parent], capture_output=True, check=True).stdout) * 4096
        with open(path, "wb") as file:
            for _ in range((free - (8 << 20)) >> 20):
                file.write(bytes(1 << 20))


if __name__ == "__main__":
    unittest.main()
