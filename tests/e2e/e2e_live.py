"""Snapshots of a guest that goes on writing: each is of one moment, of memory and disk together."""
import unittest

from harness import ROOT, StasisTestCase


class LiveSnapshotTest(StasisTestCase):
    def start_writer(self, sandbox):
        self.stasis.cli("cp", ROOT / "tests/e2e/ordered.py", f"{sandbox}:/root/ordered.py")
        self.stasis.guest(sandbox, "setsid python3 /root/ordered.py >/run/ordered.log 2>&1 </dev/null & "
                                   "for i in $(seq 1200); do [ -e /run/round ] && exit 0; sleep 0.05; done; exit 1")

    def assert_in_order(self, sandbox):
        """Two whole rounds from now: every page and the disk have been looked at."""
        seen = self.stasis.guest(sandbox, "first=$(cat /run/round); for i in $(seq 1200); do "
                                          "[ $(cat /run/round) -gt $((first + 2)) ] && break; sleep 0.05; done; "
                                          "cat /run/broken 2>/dev/null || echo fine")
        self.assertEqual(seen, "fine")

    def test_a_snapshot_of_a_guest_that_writes_is_of_one_moment(self):
        for how in (("--cold",), ("--restore", "uffd"), ("--restore", "mapped")):
            with self.subTest(how=how):
                sandbox = self.create("--template", "base", "--memory", "256", *how)
                self.snapshots_are_of_one_moment(sandbox)
                self.tearDown()

    def snapshots_are_of_one_moment(self, sandbox):
        self.start_writer(sandbox)
        self.assert_in_order(sandbox)
        for name in ("first", "second", "third"):
            taken = self.stasis.json("snapshot", "create", sandbox, name)
            self.assertGreater(taken["capture"]["memory"]["stored_bytes"], 0)
            self.assertIn(taken["capture"]["live"]["rounds"], range(1, 9), taken)
            self.assertNotIn("reason", taken["capture"]["live"])
            clone = self.create("--template", name)
            self.assert_in_order(clone)
            self.stasis.cli("rm", clone)
        self.assert_in_order(sandbox)
        # What was copied ahead is not missed by the pause that follows, nor by a snapshot of the resumed one.
        self.assertNotIn("live", self.stasis.json("pause", sandbox)["last_snapshot"])
        self.stasis.json("resume", sandbox)
        self.assert_in_order(sandbox)
        self.stasis.json("snapshot", "create", sandbox, "after")
        clone = self.create("--template", "after")
        self.assert_in_order(clone)


if __name__ == "__main__":
    unittest.main()
