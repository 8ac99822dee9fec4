"""A snapshot leaves one Stasis as a stream, and lives in another that never saw it; and compaction under running clones."""
import json
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

        other = Stasis().start()
        try:
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
        finally:
            other.stop()
            left = leftovers_of(other.state)
            other.remove()
        self.assertFalse(left)

    def import_file(self, stasis, path):
        command = [str(BIN / "stasis"), "--state-dir", str(stasis.state), "--json", "snapshot", "import"]
        with open(path, "rb") as source:
            return json.loads(subprocess.run(command, stdin=source, check=True, capture_output=True, timeout=600).stdout)

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
