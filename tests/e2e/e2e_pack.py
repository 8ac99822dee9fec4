"""A packed snapshot takes less space and restores to the same bytes; sandboxes go on from it; a compaction unpacks it."""
import unittest

from harness import CommandFailed, StasisTestCase


class PackTest(StasisTestCase):
    def packed_files(self):
        return list((self.stasis.state / "store/layers").glob("*.packed"))

    def test_a_packed_snapshot_restores_to_the_same_bytes(self):
        sandbox = self.create()
        digest = self.stasis.start_counter(sandbox)
        self.stasis.guest(sandbox, "dd if=/dev/urandom of=/root/noise bs=1M count=4 2>/dev/null; sync; sync")
        noise = self.stasis.guest(sandbox, "md5sum < /root/noise")
        self.stasis.json("snapshot", "create", sandbox, "kept")
        self.stasis.cli("rm", sandbox)
        self.assertEqual(self.packed_files(), [])

        packed = self.stasis.json("snapshot", "pack", "kept")
        self.assertEqual(packed["spaces"], 2)
        self.assertLess(packed["stored_after"], packed["stored_before"])
        self.assertEqual(len(self.packed_files()), 2)
        print(f"packed: {packed['live_bytes']} live bytes, {packed['stored_before']} -> {packed['stored_after']}")
        self.stasis.cli("snapshot", "verify", "kept")
        self.stasis.json("snapshot", "inspect", "kept")
        self.assertEqual(self.stasis.json("snapshot", "pack", "kept")["spaces"], 0)

        clone = self.create("--template", "kept")
        self.check(clone, digest, noise)
        self.stasis.json("pause", clone)  # a raw layer above the packed ones
        self.stasis.json("resume", clone)
        self.check(clone, digest, noise)
        self.stasis.cli("rm", clone)

        self.assertEqual(self.stasis.json("store", "compact", "kept")["snapshots"][0]["spaces"], 2)
        clone = self.create("--template", "kept")
        self.check(clone, digest, noise)
        self.stasis.cli("rm", clone)

    def check(self, sandbox, digest, noise):
        self.assertEqual(self.stasis.checksum(sandbox), digest)
        self.stasis.guest(sandbox, "echo 3 > /proc/sys/vm/drop_caches")
        self.assertEqual(self.stasis.guest(sandbox, "md5sum < /root/noise"), noise)

    def test_a_damaged_packed_frame_is_found_and_named(self):
        sandbox = self.create()
        self.stasis.json("snapshot", "create", sandbox, "torn")
        self.stasis.cli("rm", sandbox)
        self.stasis.json("snapshot", "pack", "torn")
        largest = max(self.packed_files(), key=lambda file: file.stat().st_size)
        largest.chmod(0o600)
        with open(largest, "r+b") as file:
            file.seek(200)
            byte = file.read(1)
            file.seek(200)
            file.write(bytes([byte[0] ^ 0x55]))
        with self.assertRaises(CommandFailed) as found:
            self.stasis.cli("--json", "snapshot", "verify", "torn")
        self.assertIn(largest.name, str(found.exception))
        self.assertIn("torn", str(found.exception))
        self.stasis.cli("snapshot", "rm", "torn")


if __name__ == "__main__":
    unittest.main()
