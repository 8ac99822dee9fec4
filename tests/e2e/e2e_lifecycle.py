"""A sandbox's life: create, exec, files, pause, resume, over several generations, and clones of a snapshot."""
import os
import signal
import time
import unittest

from harness import MIB, StasisTestCase, guest_memory, has_huge_folios


class LifecycleTest(StasisTestCase):
    def test_exec_answers_with_output_and_status(self):
        sandbox = self.create()
        self.assertRegex(self.stasis.guest(sandbox, "uname -r"), r"^6\.\d+")
        status, answer = self.stasis.rest("POST", f"/v1/sandboxes/{sandbox}/exec",
                                          {"command": ["/bin/sh", "-c", "echo out; echo err >&2; exit 7"]})
        self.assertEqual((status, answer["exit_code"], answer["stdout"], answer["stderr"]), (200, 7, "out\n", "err\n"))

    def test_files_go_in_and_out_unchanged(self):
        sandbox = self.create()
        content = bytes(range(256)) * 4096 * 3
        source = self.stasis.state / "upload"
        source.write_bytes(content)
        self.stasis.cli("cp", source, f"{sandbox}:/root/some/new/dir/file")
        self.stasis.cli("cp", f"{sandbox}:/root/some/new/dir/file", source)
        self.assertEqual(source.read_bytes(), content)
        source.unlink()

    def test_rolled_back_to_a_snapshot_of_then_memory_and_disk_are_those_of_then(self):
        sandbox = self.create()
        digest = self.stasis.start_counter(sandbox)
        # /run is memory, /root is disk.
        self.stasis.guest(sandbox, "for d in /run /root; do echo then > $d/state; echo kept > $d/kept; done")
        identity = self.stasis.guest(sandbox, "cat /etc/machine-id; hostname")
        counted = self.stasis.counter(sandbox)
        address = self.stasis.rest("GET", f"/v1/sandboxes/{sandbox}")[1]["address"]
        self.assertTrue(address)
        self.stasis.json("snapshot", "create", sandbox, "then")
        changes = "for d in /run /root; do echo now > $d/state; rm $d/kept; done; sync"
        look = "cat /run/state /run/kept /root/state /root/kept"
        self.stasis.guest(sandbox, changes)
        rolled_back = self.stasis.json("rollback", sandbox, "then")
        self.assertEqual((rolled_back["id"], rolled_back["address"]), (sandbox, address))
        self.assertEqual(self.stasis.guest(sandbox, look).split(), ["then", "kept"] * 2)
        self.assertEqual(self.stasis.checksum(sandbox), digest)
        self.assertEqual(self.stasis.guest(sandbox, "cat /etc/machine-id; hostname"), identity)
        self.assertGreaterEqual(self.stasis.counter(sandbox), counted)
        # The state of then is one like any other: it is paused, resumed, and gone back to.
        self.stasis.guest(sandbox, changes)
        self.stasis.json("pause", sandbox)
        self.stasis.json("resume", sandbox)
        self.assertEqual(self.stasis.guest(sandbox, "cat /run/state /root/state").split(), ["now"] * 2)
        self.stasis.json("pause", sandbox)
        self.assertEqual(self.stasis.json("rollback", "--restore", "uffd", sandbox, "then")["restore"]["method"], "uffd")
        self.assertEqual(self.stasis.guest(sandbox, look).split(), ["then", "kept"] * 2)
        self.assertEqual(self.stasis.checksum(sandbox), digest)
        self.assert_refused("not_found", "rollback", sandbox, "never")

    def test_a_disk_larger_than_the_image(self):
        sandbox = self.create("--template", "base", "--memory", "256", "--disk", "2048")
        blocks = int(self.stasis.guest(sandbox, "df --output=size / | tail -1"))
        self.assertGreater(blocks, 1_800_000)

    def test_what_a_warm_base_rehearsed_shows_only_in_what_is_there_already(self):
        self.create("--memory", "320")  # the first of this shape boots
        created = self.stasis.json("create", "--memory", "320")
        sandbox = created["id"]
        self.assertIsNotNone(created["restore"])
        # Page faults of programs that the daemon has started, and that have ended: before its first one for this sandbox.
        self.assertGreater(int(self.stasis.guest(sandbox, "read -r all < /proc/1/stat; set -- $all; echo ${11}")), 0)
        identity = self.stasis.guest(sandbox, "hostname; cat /etc/hostname /etc/hosts /run/e2b/.*; env; cat /proc/*/cmdline")
        self.assertIn(sandbox, identity)
        self.assertNotIn("rehearsal", identity)

    def test_an_idle_guest_does_nothing_of_its_own(self):
        """What its kernel does at every tick, for a disk that was just mounted or a network that is not there, each clone does too."""
        sandbox = self.create()
        self.assertRegex(self.stasis.guest(sandbox, "cat /proc/timer_list"), r"\.nohz_mode +: 2")
        self.assertNotIn("ext4lazyinit", self.stasis.guest(sandbox, "cat /proc/[0-9]*/comm"))
        self.assertEqual(self.stasis.guest(sandbox, "awk '{print $6}' /proc/net/if_inet6"), "lo")
        self.assertIn("lazytime", self.stasis.guest(sandbox, "awk '$2 == \"/\" {print $4}' /proc/mounts"))


class RestoreCases:
    """What a restore owes, whichever way the memory comes back."""

    def resume(self, sandbox):
        resumed = self.stasis.json("resume", sandbox, "--restore", self.way)
        self.assertEqual(resumed["restore"]["method"], self.way)
        return resumed

    def clone(self, template):
        created = self.stasis.json("create", "--template", template, "--restore", self.way)
        self.assertEqual(created["restore"]["method"], self.way)
        return created["id"]

    def test_an_image_is_booted_once_and_then_restored(self):
        first, second = (self.stasis.json("create", "--memory", "320", "--restore", self.way) for _ in range(2))
        self.assertIsNone(first.get("restore"))
        self.assertEqual(second["restore"]["method"], self.way)
        self.assertLess(second["restore"]["resident_pages"], second["restore"]["total_pages"] / 2)
        cold = self.stasis.json("create", "--memory", "320", "--cold")
        self.assertIsNone(cold.get("restore"))
        identity = "cat /etc/machine-id /proc/sys/kernel/hostname; head -c 16 /dev/urandom | base64"
        seen = [self.stasis.guest(one["id"], identity).split() for one in (first, second, cold)]
        for values in zip(*seen):
            self.assertEqual(len(set(values)), 3, values)
        self.assertLess(abs(float(self.stasis.guest(second["id"], "date +%s.%N")) - time.time()), 2)
        self.assertEqual([one["type"] for one in self.stasis.json("snapshot", "ls")["snapshots"]], ["base"])

    def test_the_next_restore_takes_a_vmm_that_was_started_ahead(self):
        sandbox = self.create("--cold", "--memory", "272")
        digest = self.stasis.start_counter(sandbox)
        self.stasis.guest(sandbox, "echo kept > /root/kept; sync")
        self.stasis.json("snapshot", "create", sandbox, "ahead")
        self.clone("ahead")
        self.stasis.wait_for_spare(272)
        clone = self.stasis.json("create", "--template", "ahead", "--restore", self.way)
        self.assertTrue(clone["restore"]["spare"], clone["restore"])
        self.assertEqual(clone["restore"]["method"], self.way)
        self.assertTrue(self.stasis.json("trace", clone["id"])["spare"])
        self.assertEqual(self.stasis.checksum(clone["id"]), digest)
        self.assertEqual(self.stasis.guest(clone["id"], "cat /root/kept; echo more >> /root/kept; hostname").split(),
                         ["kept", self.stasis.guest(clone["id"], "hostname")])
        self.assertNotEqual(self.stasis.guest(clone["id"], "cat /etc/machine-id"), self.stasis.guest(sandbox, "cat /etc/machine-id"))
        self.assertEqual(set(self.stasis.metrics_pids(clone["id"])), {"supervisor", "vmm"})
        self.stasis.wait_for_spare(272)
        self.stasis.json("pause", clone["id"])
        self.assertEqual(self.stasis.metrics_pids(clone["id"]), {})
        self.assertTrue(self.resume(clone["id"])["restore"]["spare"])
        self.assertEqual(self.stasis.guest(clone["id"], "cat /root/kept").split(), ["kept", "more"])
        self.assertEqual(self.stasis.checksum(clone["id"]), digest)

    def test_three_pauses_in_a_row_keep_counter_memory_and_disk(self):
        sandbox = self.create("--cold", "--memory", "256")
        digest = self.stasis.start_counter(sandbox)
        for generation in range(3):
            self.stasis.guest(sandbox, f"echo {generation} >> /root/log")
            counted = self.stasis.counter(sandbox)
            paused = self.stasis.json("pause", sandbox)
            self.assertEqual(paused["state"], "paused")
            self.assertEqual(paused["last_snapshot"]["memory"]["generation"], generation)
            self.assertEqual(self.stasis.metrics_pids(sandbox), {})
            resumed = self.resume(sandbox)
            self.assertEqual(resumed["state"], "running")
            self.assertLess(resumed["restore"]["resident_pages"], resumed["restore"]["total_pages"])
            self.assertGreaterEqual(self.stasis.counter(sandbox), counted)
            self.assertEqual(self.stasis.checksum(sandbox), digest)
            self.assertEqual(self.stasis.guest(sandbox, "cat /root/log").split(), [str(i) for i in range(generation + 1)])
            self.assertLess(abs(float(self.stasis.guest(sandbox, "date +%s.%N")) - time.time()), 2)

    def test_a_page_that_the_guest_zeroed_after_a_resume_reads_as_zeros_after_the_next_one(self):
        sandbox = self.create()
        fill = "python3 -c \"open('/dev/shm/pages','wb').write(bytes([0x5a])*4096*512)\""
        zero = "python3 -c \"f=open('/dev/shm/pages','r+b'); f.write(bytes(4096*512))\""
        count = "python3 -c \"d=open('/dev/shm/pages','rb').read(); print(len(d), d.count(0), d.count(0x5a))\""
        self.stasis.guest(sandbox, fill)
        self.stasis.json("pause", sandbox)
        self.resume(sandbox)
        self.assertEqual(self.stasis.guest(sandbox, count), f"{4096 * 512} 0 {4096 * 512}")
        self.stasis.guest(sandbox, zero)
        paused = self.stasis.json("pause", sandbox)
        self.assertGreaterEqual(paused["last_snapshot"]["memory"]["zeroed_bytes"], 2 * MIB)
        self.resume(sandbox)
        self.assertEqual(self.stasis.guest(sandbox, count), f"{4096 * 512} {4096 * 512} 0")

    def test_later_generations_store_what_changed(self):
        sandbox = self.create("--cold", "--memory", "256")
        first = self.stasis.json("pause", sandbox)["last_snapshot"]["memory"]
        self.resume(sandbox)
        self.stasis.guest(sandbox, "head -c 4194304 /dev/urandom > /dev/shm/new")
        second = self.stasis.json("pause", sandbox)["last_snapshot"]["memory"]
        self.assertGreaterEqual(second["stored_bytes"], 4 * MIB)
        self.assertLessEqual(second["stored_bytes"], second["compared_bytes"])
        self.assertLess(second["stored_bytes"], first["stored_bytes"] / 2)

    def test_restored_twice_from_one_snapshot_gives_two_machines(self):
        original = self.create()
        digest = self.stasis.start_counter(original)
        self.stasis.json("snapshot", "create", original, "twin")
        self.assertEqual(self.stasis.state_of(original), "running")
        one, two = self.clone("twin"), self.clone("twin")
        seen = set()
        for sandbox in (original, one, two):
            self.assertEqual(self.stasis.checksum(sandbox), digest)
            seen.add(self.stasis.guest(sandbox, "cat /etc/machine-id; hostname; head -c 16 /dev/urandom | od -An -tx1"))
        self.assertEqual(len(seen), 3)
        self.assertEqual(len({line for text in seen for line in text.splitlines()}), 9)
        # The clones live without their template and its origin, and can be frozen themselves.
        self.stasis.cli("snapshot", "rm", "twin")
        self.stasis.cli("rm", original)
        for sandbox in (one, two):
            self.stasis.json("pause", sandbox)
        for sandbox in (one, two):
            self.resume(sandbox)
            self.assertEqual(self.stasis.checksum(sandbox), digest)

    def test_snapshots_of_a_restored_sandbox_that_goes_on_are_exact(self):
        """Two in a row, and a pause: each restores to what the guest held then."""
        sandbox = self.create("--cold", "--memory", "256")
        digest = self.stasis.start_counter(sandbox)
        self.stasis.json("pause", sandbox)
        self.resume(sandbox)
        write = "python3 -c \"f=open('/dev/shm/pages','r+b' if {at} else 'wb'); f.seek({at}); f.write(bytes([{byte}])*4096*256)\""
        look = "sha256sum /dev/shm/pages"
        held = {}
        for turn, (at, byte) in enumerate(((0, 0x5a), (128 * 4096, 0), (64 * 4096, 0xa5))):
            self.stasis.guest(sandbox, write.format(at=at, byte=byte))
            held[f"turn{turn}"] = self.stasis.guest(sandbox, look)
            self.stasis.json("snapshot", "create", sandbox, f"turn{turn}")
        self.stasis.json("pause", sandbox)
        self.resume(sandbox)
        self.assertEqual(self.stasis.guest(sandbox, look), held["turn2"])
        self.assertEqual(self.stasis.checksum(sandbox), digest)
        for name, content in held.items():
            clone = self.clone(name)
            self.assertEqual(self.stasis.guest(clone, look), content)
            self.assertEqual(self.stasis.checksum(clone), digest)


class UffdRestoreTest(RestoreCases, StasisTestCase):
    way = "uffd"

    def test_loaded_in_the_background_it_asks_its_layers_for_nothing_more(self):
        sandbox = self.create("--cold", "--memory", "256")
        digest = self.stasis.start_counter(sandbox)
        self.stasis.json("pause", sandbox)
        self.assert_refused("invalid_argument", "resume", "--load", "1024", "--restore", "mapped", sandbox)
        restore = self.stasis.json("resume", "--load", "1024", sandbox)["restore"]
        self.assertEqual(restore["method"], "uffd")
        self.assertIn("loaded in the background", restore["reason"])
        self.stasis.wait_until(lambda: self.stasis.json("trace", sandbox)["load"]["complete"], "all of its memory to be there")
        trace = self.stasis.json("trace", sandbox)
        self.assertEqual(trace["load"], {"state": "complete", "complete": True, "left_bytes": 0, "error": None})
        came = self.pages_of_layers(trace)
        self.assertGreater(came["background"], 10 * MIB / 4096)
        self.assertEqual(self.stasis.checksum(sandbox), digest)
        self.assertEqual(self.pages_of_layers(self.stasis.json("trace", sandbox)), came)
        self.stasis.json("pause", sandbox)
        self.resume(sandbox)
        self.assertIsNone(self.stasis.json("trace", sandbox)["load"])
        self.assertEqual(self.stasis.checksum(sandbox), digest)

    def pages_of_layers(self, trace):
        return {row["how"]: row["pages"] for row in trace["pages"] if not row["zeros"]}


class MappedRestoreTest(RestoreCases, StasisTestCase):
    way = "mapped"

    def test_a_trace_tells_how_every_page_came_and_the_host_adds_it_up(self):
        sandbox = self.create("--cold", "--memory", "256")
        self.assertIsNone(self.stasis.json("trace", sandbox)["method"])
        self.stasis.json("pause", sandbox)
        self.stasis.json("resume", sandbox, "--restore", "mapped")
        mapped = self.stasis.json("trace", sandbox)
        self.assertEqual({event["how"] for event in mapped["events"]} - {"mapped", "copied"}, set())
        self.assertEqual(sum(event["length"] for event in mapped["events"]), sum(one["bytes"] for one in mapped["sources"]))
        self.stasis.json("pause", sandbox)
        record = self.stasis.json("resume", sandbox, "--restore", "uffd")["restore"]
        self.assertLessEqual(record["write_faults"], record["faults"])
        self.assertGreater(record["fault_p99_us"], 0)
        picture = self.stasis.state / "trace.svg"
        trace = self.stasis.json("trace", sandbox, "--svg", picture)
        self.assertIn("</svg>", picture.read_text())
        picture.unlink()
        self.assertEqual((trace["method"], trace["left_out"], trace["total_pages"]), ("uffd", 0, 65536))
        times = [event["when_us"] for event in trace["events"]]
        self.assertEqual(times, sorted(times))
        pages = sum(one["pages"] for one in trace["pages"])
        # The guest goes on while these are read one after the other: they may differ by what one step brings in.
        step = 512 * 4096
        self.assertAlmostEqual(sum(event["length"] for event in trace["events"]), pages * 4096, delta=step)
        self.assertAlmostEqual(sum(one["bytes"] for one in trace["sources"]), pages * 4096, delta=step)
        self.assertAlmostEqual(sum(trace["fault_times"]), sum(one["count"] for one in trace["faults"]), delta=2)
        # What it did stays counted when the sandbox has gone.
        faults = sum(one["count"] for one in trace["faults"])
        self.assertGreater(faults, 0)
        self.assertGreaterEqual(self.faults_of_the_host(), faults)
        self.stasis.cli("rm", sandbox)
        self.assertGreaterEqual(self.faults_of_the_host(), faults)

    def faults_of_the_host(self):
        lines = self.stasis.metrics().splitlines()
        return sum(int(line.split()[-1]) for line in lines if line.startswith("stasis_pager_faults_total{"))

    def test_it_is_chosen_where_it_is_possible_and_the_record_says_why(self):
        sandbox = self.create("--cold", "--memory", "256")
        self.stasis.json("pause", sandbox)
        self.assertEqual(self.stasis.json("resume", sandbox)["restore"]["method"], "mapped")
        self.stasis.json("pause", sandbox)
        # What the host does not know to be whole: as after a reboot.
        notes = self.stasis.state / "store/verified"
        notes.rename(self.stasis.state / "store/noted")
        self.addCleanup((self.stasis.state / "store/noted").rename, notes)
        error = self.assert_refused("failed_precondition", "resume", "--restore", "mapped", sandbox)
        self.assertIn("neither written nor verified", error["message"])
        self.assertEqual(self.stasis.state_of(sandbox), "paused")
        served = self.stasis.json("resume", sandbox)["restore"]
        self.assertEqual(served["method"], "uffd")
        self.assertIn("neither written nor verified", served["reason"])
        listed = [one for one in self.stasis.json("ls")["sandboxes"] if one["id"] == sandbox]
        self.assertEqual(listed[0]["restore"], served)

    def test_a_clone_lives_on_when_its_layers_are_replaced_and_collected(self):
        sandbox = self.create("--cold", "--memory", "256")
        digest = self.stasis.start_counter(sandbox)
        self.stasis.json("pause", sandbox)
        self.resume(sandbox)
        self.stasis.json("snapshot", "create", sandbox, "chain")
        clone = self.clone("chain")
        self.stasis.cli("store", "compact", "chain")
        after = self.clone("chain")
        self.stasis.cli("snapshot", "rm", "chain")
        self.stasis.cli("store", "gc")
        for one in (clone, after):
            self.assertEqual(self.stasis.checksum(one), digest)
            self.stasis.json("pause", one)
            self.resume(one)
            self.assertEqual(self.stasis.checksum(one), digest)

    def test_after_a_compaction_clones_map_huge_pages(self):
        if not has_huge_folios(self.stasis.state):
            self.skipTest("this file system has no folios so large")
        sandbox = self.create("--cold", "--memory", "256")
        self.stasis.json("pause", sandbox)
        self.resume(sandbox)
        self.stasis.json("snapshot", "create", sandbox, "compacted")
        self.stasis.cli("store", "compact", "compacted")
        clone = self.clone("compacted")
        self.stasis.guest(clone, "true")
        memory = guest_memory(self.stasis.metrics_pids(clone)["vmm"], self.stasis.state / "store/layers", 256 * MIB)
        self.assertGreater(memory["huge"], 0)

    def test_clones_share_what_none_of_them_has_written(self):
        sandbox = self.create("--cold", "--memory", "256")
        digest = self.stasis.start_counter(sandbox)
        self.stasis.json("snapshot", "create", sandbox, "shared")
        own, mapped = 0, 0
        for clone in [self.clone("shared") for _ in range(3)]:
            self.assertEqual(self.stasis.checksum(clone), digest)  # reads 32 MiB, writes some
            memory = guest_memory(self.stasis.metrics_pids(clone)["vmm"], self.stasis.state / "store/layers", 256 * MIB)
            self.assertGreater(memory["resident"], 32 * MIB)
            own, mapped = own + memory["own"], mapped + memory["resident"]
        self.assertLess(own, mapped / 4)


class PartlyMappedRestoreTest(StasisTestCase):
    """Of a snapshot whose own layer is packed, over the raw one that the host booted."""
    look = "sha256sum /dev/shm/pages /root/kept"

    def packed(self, name):
        sandbox = self.create()
        self.stasis.guest(sandbox, "head -c 4194304 /dev/urandom > /dev/shm/pages; echo kept > /root/kept; sync")
        held = self.stasis.guest(sandbox, self.look)
        self.stasis.json("snapshot", "create", sandbox, name)
        self.stasis.cli("rm", sandbox)
        self.stasis.json("snapshot", "pack", name)
        return held

    def assert_partly(self, restore):
        self.assertEqual(restore["method"], "partly", restore)
        self.assertRegex(restore["reason"], r"^\d+ of \d+ MiB are mapped, the rest comes by faults: layer .* is compressed")
        self.assertGreater(restore["mapped_bytes"], 0)
        self.assertGreater(restore["pages_prefetched"], 0)

    def test_the_guest_has_the_same_bytes_and_its_next_snapshots_are_exact(self):
        held = self.packed("part")
        clone = self.stasis.json("create", "--template", "part")
        self.assert_partly(clone["restore"])
        clone = clone["id"]
        trace = self.stasis.json("trace", clone)
        self.assertEqual(trace["method"], "partly")
        self.assertIn("mapped", {event["how"] for event in trace["events"]})
        self.assertTrue({"fault", "prefetch"} & {event["how"] for event in trace["events"]})
        self.assertEqual(self.stasis.guest(clone, self.look), held)
        # Over what was served, and new; what was mapped is written by whatever runs. The first snapshot is of a guest that goes on.
        write = "python3 -c \"f=open('/dev/shm/pages','r+b'); f.seek({at}); f.write(bytes([{byte}])*4096*256)\""
        self.stasis.guest(clone, write.format(at=0, byte=0))
        self.stasis.guest(clone, "head -c 1048576 /dev/urandom > /dev/shm/more")
        first = self.stasis.guest(clone, self.look)
        self.stasis.json("snapshot", "create", clone, "running")
        self.stasis.guest(clone, write.format(at=2 << 20, byte=7))
        second = self.stasis.guest(clone, self.look)
        self.stasis.json("pause", clone)
        resumed = self.stasis.json("resume", clone)
        self.assert_partly(resumed["restore"])
        self.assertEqual(self.stasis.guest(clone, self.look), second)
        by_faults = self.stasis.json("create", "--template", "running", "--restore", "uffd")["id"]
        self.assertEqual(self.stasis.guest(by_faults, self.look), first)

    def test_asked_for_mapped_it_is_refused(self):
        self.packed("not-mapped")
        error = self.assert_refused("failed_precondition", "create", "--template", "not-mapped", "--restore", "mapped")
        self.assertIn("is compressed", error["message"])

    def test_without_its_page_server_it_ends_with_the_reason(self):
        self.packed("orphan")
        clone = self.stasis.json("create", "--template", "orphan")
        self.assert_partly(clone["restore"])
        pids = self.stasis.metrics_pids(clone["id"])
        os.kill(pids["supervisor"], signal.SIGKILL)
        self.stasis.wait_until(lambda: not os.path.exists(f"/proc/{pids['vmm']}"), "the VMM to go")
        self.stasis.wait_until(lambda: self.stasis.state_of(clone["id"]) == "error", "state error")
        self.assertTrue(self.stasis.rest("GET", f"/v1/sandboxes/{clone['id']}")[1]["reason"])


if __name__ == "__main__":
    unittest.main()
