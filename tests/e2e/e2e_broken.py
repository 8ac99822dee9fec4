"""Hosts, images and machines that are broken: a clear error with the reason, a true state, nothing left behind."""
import os
import random
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import unittest
from pathlib import Path

from harness import BIN, IMAGE, CommandFailed, Stasis, StasisTestCase, leftovers_of


def altered_image(**changes):
    """A copy of the base image in which files are replaced: name=bytes, None (missing), or a function that makes the path."""
    directory = Path(tempfile.mkdtemp(prefix="stasis-image-"))
    for file in IMAGE.iterdir():
        if file.is_file():
            subprocess.run(["cp", "--sparse=always", file, directory / file.name], check=True)
    for name, change in changes.items():
        path = directory / {"vmlinux": "vmlinux", "initrd": "initrd", "rootfs": "rootfs.ext4"}[name]
        path.unlink()
        if callable(change):
            change(path)
        elif change is not None:
            path.write_bytes(change)
    return directory


def disk_without_daemon(path):
    """The root disk with a daemon that never does anything: debugfs writes into the file system without mounting it."""
    subprocess.run(["cp", "--sparse=always", IMAGE / "rootfs.ext4", path], check=True)
    with tempfile.NamedTemporaryFile("w", suffix=".sh") as script:
        script.write("#!/bin/sh\nexec sleep infinity\n")
        script.flush()
        commands = "rm /usr/sbin/stasis-guest\nwrite {} /usr/sbin/stasis-guest\nset_inode_field /usr/sbin/stasis-guest mode 0100755\n"
        subprocess.run(["debugfs", "-w", "-f", "-", path], input=commands.format(script.name), text=True, check=True,
                       capture_output=True)


class BrokenImageTest(unittest.TestCase):
    def run_create(self, image, prefix=()):
        """Starts Stasis on an image, tries to create a sandbox, and returns the error."""
        stasis = Stasis(image=image, prefix=prefix)
        try:
            stasis.start()
            with self.assertRaises(CommandFailed) as caught:
                stasis.cli("--json", "create", "--memory", "256")
            rows = stasis.rest("GET", "/v1/sandboxes?state=error")[1]["sandboxes"]
            self.assertEqual([bool(row["reason"]) for row in rows], [True] * len(rows))
            for row in rows:
                stasis.cli("rm", row["id"])
            stasis.stop()
            self.assertEqual(leftovers_of(stasis.state), [])
            return caught.exception.error
        finally:
            if stasis.up.poll() is None:
                stasis.up.kill()
                stasis.up.wait()
            stasis.remove()

    def test_a_missing_kernel_is_told_before_anything_runs(self):
        image = altered_image(vmlinux=None)
        state = Path(tempfile.mkdtemp(prefix="stasis-e2e-"))
        result = subprocess.run([BIN / "stasis", "up", "--state-dir", state, "--image", f"base={image}"], capture_output=True,
                                text=True, timeout=120)
        self.assertNotEqual(result.returncode, 0)
        self.assertIn("vmlinux", result.stderr + result.stdout)
        self.assertEqual(leftovers_of(state), [])
        shutil.rmtree(state)
        shutil.rmtree(image)

    def test_a_kernel_that_is_none(self):
        image = altered_image(vmlinux=b"not a kernel" * 1000)
        error = self.run_create(image)
        self.assertIn("QEMU ended", error["message"])
        shutil.rmtree(image)

    def test_an_initrd_that_is_none_ends_the_machine_at_boot(self):
        image = altered_image(initrd=b"not an initrd" * 100)
        error = self.run_create(image)
        self.assertTrue(error["message"])
        shutil.rmtree(image)

    def test_a_daemon_that_never_answers(self):
        image = altered_image(rootfs=disk_without_daemon)
        error = self.run_create(image)
        self.assertEqual(error["code"], "deadline_exceeded")
        self.assertIn("did not answer", error["message"])
        shutil.rmtree(image)

    def test_no_fuse(self):
        # In a chroot "/" is no mount point and cannot be made private; there nothing is shared to begin with.
        hide = ["unshare", "--mount", "--propagation", "unchanged", "sh", "-c",
                'mount --make-rprivate / 2>/dev/null; mount --bind /dev/null /dev/fuse; exec "$@"', "sh"]
        error = self.run_create(IMAGE, prefix=hide)
        self.assertIn("FUSE", error["message"])

    def test_no_image(self):
        state = Path(tempfile.mkdtemp(prefix="stasis-e2e-"))
        result = subprocess.run([BIN / "stasis", "up", "--state-dir", state, "--image", "base=/no/such/directory"],
                                capture_output=True, text=True, timeout=120)
        self.assertNotEqual(result.returncode, 0)
        self.assertIn("make image", result.stderr + result.stdout)
        shutil.rmtree(state)


class DyingMachineTest(StasisTestCase):
    def test_a_vmm_that_dies_while_it_boots(self):
        for delay in (0.0, 0.5):
            answer = []
            creator = threading.Thread(target=lambda: answer.append(self.stasis.rest("POST", "/v1/sandboxes", {"memory_mb": 256, "cold": True})))
            before = set(self.all_vmms())
            creator.start()
            self.stasis.wait_until(lambda: set(self.all_vmms()) - before, "a VMM")
            time.sleep(delay)
            os.kill((set(self.all_vmms()) - before).pop(), signal.SIGKILL)
            creator.join()
            status, body = answer[0]
            self.assertGreaterEqual(status, 400)
            self.assertIn("signal 9", body["error"]["message"])
            self.assertEqual(self.all_vmms(), sorted(before))

    def test_a_vmm_that_dies_during_a_pause_or_a_resume(self):
        for operation, seed in (("pause", 1), ("pause", 2), ("resume", 3), ("resume", 4)):
            sandbox = self.create()
            self.stasis.guest(sandbox, "echo kept > /root/kept; sync")
            if operation == "resume":
                self.stasis.json("pause", sandbox)
            answer = []
            call = threading.Thread(target=lambda s=sandbox, o=operation: answer.append(self.stasis.rest("POST", f"/v1/sandboxes/{s}/{o}")))
            call.start()
            self.kill_vmm_of(sandbox, random.Random(seed).uniform(0, 0.1))
            call.join()
            # Whatever came first, the state that is told is true: running and paused sandboxes work, an error has its reason.
            self.stasis.wait_until(lambda s=sandbox: self.stasis.state_of(s) in ("running", "paused", "error"), "a settled state")
            if self.stasis.state_of(sandbox) == "paused":
                self.stasis.json("resume", sandbox)
            # A VMM that was killed just after the operation is found dead a moment later: then the state must follow.
            try:
                self.assertEqual(self.stasis.guest(sandbox, "cat /root/kept"), "kept")
            except CommandFailed:
                self.stasis.wait_until(lambda s=sandbox: self.stasis.state_of(s) == "error", "state error")
                self.assertTrue(self.stasis.rest("GET", f"/v1/sandboxes/{sandbox}")[1]["reason"])
            self.stasis.cli("rm", sandbox)

    def all_vmms(self):
        marker = f"{self.stasis.state}/sandboxes/".encode()
        found = []
        for entry in Path("/proc").iterdir():
            try:
                command = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
            except OSError:
                continue
            if marker in command and b"qemu-system" in command:
                found.append(int(entry.name))
        return sorted(found)

    def kill_vmm_of(self, sandbox, delay):
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            vmm = self.stasis.metrics_pids(sandbox).get("vmm")
            if vmm:
                time.sleep(delay)
                try:
                    os.kill(vmm, signal.SIGKILL)
                except ProcessLookupError:
                    pass  # it had ended already
                return


if __name__ == "__main__":
    unittest.main()
