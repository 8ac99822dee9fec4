"""A snapshot leaves one Stasis as a stream, and lives in another that never saw it, however often the stream breaks; and
compaction under running clones."""
import contextlib
import json
import os
import signal
import subprocess
import unittest

from harness import BIN, CommandFailed, Stasis, StasisTestCase
from leftovers import leftovers_of


class ArchiveTest(StasisTestCase):
    def test_an_exported_snapshot_lives_on_in_another_stasis(self):
        sandbox = self.create()
        digest = self.stasis.start_counter(sandbox)
        self.stasis.guest(sandbox, "echo on the disk > /root/note; sync")
        self.stasis.json("pause", sandbox)
        self.stasis.json("resume", sandbox)
        counted = self.stasis.counter(sandbox)
        self.stasis.json("snapshot", "create", sandbox, "moving")
        archive = self.stasis.state / "moving.stasis"
        archive.write_bytes(self.stasis.cli("snapshot", "export", "moving"))
        self.assertEqual(self.stasis.cli("snapshot", "export", "--from", "1000", "moving"), archive.read_bytes()[1000:])
        self.stasis.cli("rm", sandbox)
        self.stasis.cli("snapshot", "rm", "moving")

        with self.another() as other:
            with self.assertRaises(CommandFailed) as refused:
                other.cli("--json", "snapshot", "import", stdin=archive.read_bytes()[:-1])
            self.assertEqual(refused.exception.error["code"], "data_loss")
            imported = self.import_file(other, archive)
            self.assertEqual((imported["name"], imported["memory_mb"]), ("moving", 256))
            archive.unlink()
            clone = other.json("create", "--template", "moving")
            self.assertEqual(other.checksum(clone["id"]), digest)
            self.assertGreaterEqual(other.counter(clone["id"]), counted)
            self.assertEqual(other.guest(clone["id"], "cat /root/note"), "on the disk")
            before = other.counter(clone["id"])
            other.wait_until(lambda: other.counter(clone["id"]) > before, "the counter to go on")
            other.json("pause", clone["id"])
            other.json("resume", clone["id"])
            self.assertEqual(other.checksum(clone["id"]), digest)
            other.cli("rm", clone["id"])
            other.cli("snapshot", "rm", "moving")

    @contextlib.contextmanager
    def another(self):
        """A Stasis that never saw this one, and leaves nothing."""
        other = Stasis().start()
        try:
            yield other
        finally:
            other.stop()
            left = leftovers_of(other.state)
            other.remove()
        self.assertFalse(left)

    def import_command(self, stasis, *arguments):
        return [str(BIN / "stasis"), "--state-dir", str(stasis.state), "--json", "snapshot", "import", *arguments]

    def import_file(self, stasis, path, *arguments):
        command = self.import_command(stasis, *arguments)
        with open(path, "rb") as source:
            return json.loads(subprocess.run(command, stdin=source, check=True, capture_output=True, timeout=600).stdout)

    def test_an_import_goes_on_after_its_caller_the_agent_and_the_server_died(self):
        sandbox = self.create()
        digest = self.stasis.start_counter(sandbox)
        self.stasis.guest(sandbox, "head -c 48M /dev/urandom > /dev/shm/noise")  # what zstd cannot make small
        noise = self.stasis.guest(sandbox, "sha256sum < /dev/shm/noise")
        self.stasis.json("snapshot", "create", sandbox, "moving")
        archive = self.stasis.cli("snapshot", "export", "moving")
        self.stasis.cli("rm", sandbox)
        self.stasis.cli("snapshot", "rm", "moving")

        with self.another() as other:
            self.broken_import(other, archive[:len(archive) // 4], lambda importer: importer.kill())
            self.wait_ended(other)
            self.assertGreaterEqual(self.kept(other)["kept_bytes"], len(archive) // 4 - self.IN_FLIGHT)

            # What the agent had not yet synced comes again.
            before = self.kept(other)["kept_bytes"]
            arrived = before + self.SYNCED_EVERY + 2 * self.IN_FLIGHT
            self.broken_import(other, archive[:arrived], lambda _: os.kill(other.child_pid("agent"), signal.SIGKILL))
            other.wait_until(lambda: self.kept(other)["kept_bytes"] >= before + self.SYNCED_EVERY, "the agent to be back")

            before = self.kept(other)["kept_bytes"]
            self.broken_import(other, archive[:before + 3 * self.IN_FLIGHT],
                               lambda _: os.kill(other.child_pid("server"), signal.SIGKILL))
            other.wait_until(other.ready, "the server to be back")
            self.wait_ended(other)
            self.assertGreater(self.kept(other)["kept_bytes"], before)
            self.assertEqual(self.kept(other)["name"], "moving")

            changed = bytearray(archive)
            changed[100_000] ^= 1
            with self.assertRaises(CommandFailed) as refused:
                other.cli("--json", "snapshot", "import", "--resume", stdin=bytes(changed))
            self.assertEqual(refused.exception.error["code"], "failed_precondition")
            self.assertIn("has changed", refused.exception.error["message"])

            while (imported := self.resumed(other, archive)) is None:
                pass
            self.assertEqual(imported["name"], "moving")
            self.assertEqual(list((other.state / "store/imports").iterdir()), [])
            clone = other.json("create", "--template", "moving")["id"]
            self.assertEqual(other.checksum(clone), digest)
            self.assertEqual(other.guest(clone, "sha256sum < /dev/shm/noise"), noise)
            other.cli("rm", clone)
            other.cli("snapshot", "rm", "moving")

    IN_FLIGHT = 3 << 20     # at most so many bytes are between the caller and the agent's file
    SYNCED_EVERY = 32 << 20

    def broken_import(self, stasis, first, strike):
        """Sends the first bytes, and when they have come strikes; the import fails."""
        importer = self.sender(stasis, first)
        while importer is None:
            importer = self.sender(stasis, first)
        stasis.wait_until(lambda: self.arrived(stasis) >= len(first) - self.IN_FLIGHT, "the bytes to arrive")
        strike(importer)
        with contextlib.suppress(BrokenPipeError):
            importer.stdin.close()
        self.assertNotEqual(importer.wait(timeout=60), 0)

    def sender(self, stasis, first):
        """A process that has sent these bytes and waits for more; None if the agent was not yet through with the import before:
        what counts is seen a moment before it is synced, and the import ends after that."""
        importer = subprocess.Popen(self.import_command(stasis, "--resume"), stdin=subprocess.PIPE,
                                    stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        self.addCleanup(importer.stderr.close)
        try:
            importer.stdin.write(first)
            importer.stdin.flush()
            return importer
        except BrokenPipeError:
            with contextlib.suppress(BrokenPipeError):
                importer.stdin.close()
            importer.wait(timeout=60)
            self.assertEqual(json.loads(importer.stderr.read())["error"]["code"], "aborted")
            return None

    def resumed(self, stasis, archive):
        """The snapshot; None as for sender()."""
        try:
            return json.loads(stasis.cli("--json", "snapshot", "import", "--resume", stdin=archive))
        except CommandFailed as refused:
            self.assertEqual(refused.error["code"], "aborted")
            return None

    def stream(self, stasis):
        with contextlib.suppress(FileNotFoundError):
            for directory in (stasis.state / "store/imports").iterdir():
                return directory
        return None

    def arrived(self, stasis):
        with contextlib.suppress(FileNotFoundError, TypeError):
            return (self.stream(stasis) / "archive").stat().st_size
        return 0

    def kept(self, stasis):
        status, body = stasis.rest("GET", f"/v1/imports/{self.stream(stasis).name}")
        return body if status == 200 else {"kept_bytes": 0}

    def wait_ended(self, stasis):
        """Until the agent has seen that the stream broke: then everything that has come counts."""
        stasis.wait_until(lambda: self.kept(stasis)["kept_bytes"] == self.arrived(stasis), "the broken import to end")

    def test_compaction_under_running_clones(self):
        sandbox = self.create()
        digest = self.stasis.start_counter(sandbox)
        for _ in range(3):
            self.stasis.json("pause", sandbox)
            self.stasis.json("resume", sandbox)
        self.stasis.json("snapshot", "create", sandbox, "chain")
        running = self.create("--template", "chain")
        compacted = self.stasis.json("store", "compact", "chain")["snapshots"]
        self.assertEqual(compacted[0]["spaces"], 2)
        self.assertGreater(compacted[0]["layers_before"], 4)
        # The clone that runs on the old layers, one from the new, and one of each after a pause.
        fresh = self.create("--template", "chain")
        for clone in (running, fresh):
            self.assertEqual(self.stasis.checksum(clone), digest)
            self.stasis.json("pause", clone)
            self.stasis.json("resume", clone)
            self.assertEqual(self.stasis.checksum(clone), digest)
        self.assertEqual(self.stasis.json("store", "compact", "chain")["snapshots"][0]["spaces"], 0)


if __name__ == "__main__":
    unittest.main()
