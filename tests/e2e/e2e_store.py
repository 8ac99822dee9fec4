"""The store as people see it: verify, df, gc, inspect, tree, diff, retention, with a real guest."""
import contextlib
import http.server
import json
import os
import pty
import subprocess
import threading
import time
import unittest
import xml.etree.ElementTree as ElementTree

from harness import BIN, CommandFailed, StasisTestCase

MIB = 1 << 20


class StoreTest(StasisTestCase):
    def verify(self, *arguments):
        """Exit status and document of a verification: damage is a status, not an error."""
        command = [str(BIN / "stasis"), "--state-dir", str(self.stasis.state), "--json", "snapshot", "verify", *arguments]
        result = subprocess.run(command, capture_output=True, timeout=600)
        return result.returncode, json.loads(result.stdout)

    def write_memory(self, sandbox, name, mebibytes):
        self.stasis.guest(sandbox, f"head -c {mebibytes}M /dev/urandom > /dev/shm/{name}")

    def spaces(self, answer):
        return {space["name"]: space for space in answer["spaces"]}

    def holder(self, name):
        return next(one for one in self.stasis.json("store", "df")["holders"] if name in one.get("names", []))

    @contextlib.contextmanager
    def flipped_byte(self, path, offset):
        """A byte of a file changed, and put back."""
        mode = path.stat().st_mode
        path.chmod(0o600)
        fd = os.open(path, os.O_RDWR)
        try:
            byte = os.pread(fd, 1, offset)
            os.pwrite(fd, bytes([byte[0] ^ 0x40]), offset)
            yield
            os.pwrite(fd, byte, offset)
        finally:
            os.close(fd)
            path.chmod(mode)

    def test_a_flipped_byte_is_found_and_named_with_everyone_who_needs_it(self):
        sandbox = self.create("--cold", "--memory", "256")
        self.stasis.json("snapshot", "create", sandbox, "first")
        self.write_memory(sandbox, "noise", 2)
        self.stasis.json("snapshot", "create", sandbox, "second")
        status, whole = self.verify("--all")
        self.assertEqual((status, whole["damages"]), (0, 0))
        self.assertGreaterEqual(whole["snapshots"], 3)
        status, one = self.verify("first")
        self.assertEqual(status, 0)
        self.assertLess(one["frames"], whole["frames"])

        memory = self.spaces(self.stasis.json("snapshot", "inspect", "first"))["memory"]
        layer = memory["layers"][0]
        path = self.stasis.state / "store/layers" / f"{layer['layer_id']}.raw"
        offset = self.first_data(path)
        with self.flipped_byte(path, offset):
            for name in ("first", "second"):
                status, damaged = self.verify(name)
                self.assertEqual((status, damaged["damages"]), (1, 1), damaged)
                damage = damaged["damage"][0]
                self.assertEqual((damage["file"], damage["frame"]), (str(path), offset // 65536))
                self.assertEqual([one["names"] for one in damage["snapshots"]], [[name]])
            status, damaged = self.verify("--all")
            self.assertEqual(status, 1)
            self.assertEqual(sorted(one["names"][0] for one in damaged["damage"][0]["snapshots"]), ["first", "second"])
            self.assertEqual(self.verify("base")[0], 0)
            self.assertFalse(self.spaces(self.stasis.json("snapshot", "inspect", "first"))["memory"]["layers"][0]["verified"])
        self.assertEqual(self.verify("--all")[0], 0)
        self.assertTrue(self.spaces(self.stasis.json("snapshot", "inspect", "first"))["memory"]["layers"][0]["verified"])
        self.assert_refused("not_found", "snapshot", "verify", "nosuchsnapshot")

    def first_data(self, path):
        fd = os.open(path, os.O_RDONLY)
        try:
            return os.lseek(fd, 0, os.SEEK_DATA)
        finally:
            os.close(fd)

    def test_what_the_scrubber_found_is_shown_also_after_a_restart(self):
        self.assertEqual(self.usage()["scrub"]["damaged"], [], "the first pass begins ten minutes after the start")
        self.assertIn("stasis_scrub_damaged_files 0\n", self.stasis.metrics())
        self.stasis.stop()
        file = str(self.stasis.state / "store/layers/x.raw")
        findings = {"started_unix_ms": 1764000000000, "finished_unix_ms": 1764000001000, "under_way": False, "bytes": 12345,
                    "done": "00000000-0000-0000-0000-000000000000", "damaged": [], "damaged_before": [file]}
        (self.stasis.state / "scrub.json").write_text(json.dumps(findings))
        self.stasis.start()
        scrub = self.usage()["scrub"]
        self.assertEqual((scrub["damaged"], scrub["checked_bytes"], scrub["under_way"]), ([file], 12345, False))
        self.assertIn("stasis_scrub_damaged_files 1\n", self.stasis.metrics())
        self.assertIn("stasis_scrub_finished_timestamp_seconds 1764000001", self.stasis.metrics())

    def usage(self):
        return self.stasis.json("store", "df")

    def undisturbed(self, rubbish, look):
        """What look() says while `rubbish` is there all the time. The agent collects by itself after a pause: where that came
        between, or kept the store busy, look again."""
        for _ in range(100):
            rubbish.write_bytes(bytes(3 * MIB))
            with contextlib.suppress(CommandFailed):
                seen = look()
                if rubbish.exists() and None not in seen:
                    return seen
            time.sleep(0.1)
        self.fail("the agent never leaves the store alone")

    def test_df_a_dry_run_and_gc_agree(self):
        sandbox = self.create("--cold", "--memory", "256")
        self.stasis.json("pause", sandbox)
        self.stasis.json("snapshot", "create", sandbox, "frozen")
        frozen = self.holder("frozen")
        self.assertEqual(frozen["sandboxes"], [sandbox])
        self.assertGreater(frozen["own_bytes"], 10 * MIB)
        self.assertGreater(frozen["shared_bytes"], 100 * MIB, "its disk stands on the image's")
        self.stasis.wait_until(lambda: self.usage()["reclaimable_bytes"] == 0, "a store without rubbish")

        rubbish = self.stasis.state / "store/layers/3f2c8f0e-6a1f-4f0a-9d3e-0123456789ab.raw.tmp"
        reclaimable, planned = self.undisturbed(
            rubbish, lambda: (self.usage()["reclaimable_bytes"], self.stasis.json("store", "gc", "--dry-run")))
        self.assertGreaterEqual(reclaimable, 3 * MIB)
        self.assertEqual(planned["bytes"], reclaimable)
        self.assertEqual([one["file"] for one in planned["removed"]], [f"layers/{rubbish.name}"])
        (young,) = self.undisturbed(rubbish, lambda: (self.stasis.json("store", "gc", "--grace", "1h"),))
        self.assertEqual((young["count"], young["kept_young"]), (0, 1))
        for _ in range(100):
            done = self.stasis.json("store", "gc")
            if done["count"] > 0:
                break
            rubbish.write_bytes(bytes(3 * MIB))  # the agent's own collection was faster
        self.assertEqual(done["bytes"], planned["bytes"])
        self.assertFalse(rubbish.exists())

        before = self.usage()["total_bytes"]
        self.stasis.cli("snapshot", "rm", "frozen")
        self.assertGreater(self.usage()["total_bytes"], before - MIB, "the paused sandbox needs it")
        self.stasis.cli("rm", sandbox)
        self.stasis.wait_until(lambda: abs(before - self.usage()["total_bytes"] - frozen["own_bytes"]) <= MIB,
                               "its bytes to come back")

    def test_inspect_tree_and_diff_show_what_a_guest_wrote(self):
        sandbox = self.create("--cold", "--memory", "256")
        self.stasis.json("snapshot", "create", sandbox, "before")
        self.write_memory(sandbox, "noise", 16)
        self.stasis.guest(sandbox, "head -c 8M /dev/urandom > /root/noise && sync")
        self.stasis.json("snapshot", "create", sandbox, "after")

        self.stasis.cli("rm", sandbox)  # it goes on standing on its last snapshot

        after = self.stasis.json("snapshot", "inspect", "after")
        memory, disk = self.spaces(after)["memory"], self.spaces(after)["disk"]
        self.assertEqual(memory["size"], 256 * MIB)
        self.assertEqual(memory["data_bytes"] + memory["zero_bytes"], memory["size"])
        self.assertEqual(sum(layer["mapped_bytes"] for layer in memory["layers"]), memory["data_bytes"])
        self.assertEqual([layer["generation"] for layer in memory["layers"]], [0, 1])
        self.assertEqual([layer["shared"] for layer in memory["layers"]], [True, False])
        self.assertTrue(all(layer["verified"] for layer in memory["layers"]), "this host has written them")
        self.assertGreater(memory["layers"][1]["mapped_bytes"], 16 * MIB)
        self.assertGreater(disk["layers"][-1]["mapped_bytes"], 8 * MIB)
        self.assertGreaterEqual(memory["fragmentation"], 0)
        self.assertLess(memory["fragmentation"], 1)
        self.assertEqual(len(memory["cells"]), 1024)
        self.assertEqual([one["names"] for one in after["lineage"]], [["after"], ["before"], ["base"]])

        diff = self.spaces(self.stasis.json("snapshot", "diff", "before", "after"))
        self.assertGreater(diff["memory"]["changed_bytes"], 16 * MIB)
        self.assertLess(diff["memory"]["changed_bytes"], 120 * MIB)
        self.assertGreater(diff["disk"]["changed_bytes"], 8 * MIB)
        self.assertLess(diff["disk"]["changed_bytes"], 40 * MIB)
        self.assertLess(diff["disk"]["compared_bytes"], 40 * MIB, "what both share is not read")
        same = self.spaces(self.stasis.json("snapshot", "diff", "after", "after"))
        self.assertEqual([space["changed_bytes"] + space["compared_bytes"] for space in same.values()], [0, 0])

        pictures = [self.stasis.state / "after.svg", self.stasis.state / "tree.svg"]
        self.stasis.cli("snapshot", "inspect", "after", "--svg", pictures[0])
        self.stasis.cli("snapshot", "tree", "--svg", pictures[1])
        for picture in pictures:
            self.assertTrue(ElementTree.parse(picture).getroot().tag.endswith("svg"))
            picture.unlink()
        holders = {name: one for one in self.stasis.json("snapshot", "tree")["holders"] for name in one.get("names", [])}
        self.assertEqual(holders["after"]["parent_id"], holders["before"]["id"])
        self.assertEqual(holders["before"]["parent_id"], holders["base"]["id"])

    def test_a_diff_names_exactly_the_files_that_a_guest_changed(self):
        sandbox = self.create("--memory", "256")
        self.stasis.guest(sandbox, "mkdir -p /srv/t/dir && cd /srv/t && echo keep > keep && echo one > changed && echo gone > gone && "
                                   "head -c 300000 /dev/urandom > large && echo moved > moved && echo mode > mode && "
                                   "echo in > dir/in && echo replaced > replaced && sync")
        self.stasis.json("snapshot", "create", sandbox, "files-1")
        # What is in the journal only is on the disk too: nothing waits for it to be written back.
        self.stasis.guest(sandbox, "cd /srv/t && echo two > changed && printf X | dd of=large bs=1 seek=200000 conv=notrunc && rm gone && "
                                   "mv moved renamed && chmod 700 mode && chown 1000 mode && mv dir elsewhere && "
                                   "echo REPLACED > new && mv new replaced && mkdir fresh && ln -s /etc/hosts fresh/link && "
                                   "echo odd > $'odd\\n\\e[31m' && rm keep && mkdir keep && sync")
        self.stasis.json("snapshot", "create", sandbox, "files-2")

        files = self.spaces(self.stasis.json("snapshot", "diff", "files-1", "files-2"))["disk"]["files"]
        self.assertIsNone(files["note"])
        self.assertEqual(
            [(one["change"], one["path"].removeprefix("/srv/t/"), one["old_path"], one["what"]) for one in files["changes"]],
            [("modified", "changed", None, ["content"]), ("renamed", "elsewhere", "/srv/t/dir", []), ("added", "fresh", None, []),
             ("added", "fresh/link", None, []), ("removed", "gone", None, []), ("type", "keep", None, []),
             ("modified", "large", None, ["content"]), ("metadata", "mode", None, ["mode", "owner"]),
             ("added", "odd\\x0a\\x1b[31m", None, []), ("renamed", "renamed", "/srv/t/moved", []),
             ("modified", "replaced", None, ["content"])])
        self.assertEqual(files["counts"], {"added": 3, "removed": 1, "modified": 3, "metadata": 1, "type": 1, "renamed": 2})
        back = self.spaces(self.stasis.json("snapshot", "diff", "files-2", "files-1"))["disk"]["files"]
        self.assertEqual((back["counts"]["added"], back["counts"]["removed"]), (1, 3))
        self.assertEqual(self.spaces(self.stasis.json("snapshot", "diff", "files-1", "files-1"))["disk"]["files"]["changes"], [])
        since_image = self.spaces(self.stasis.json("snapshot", "diff", "base", "files-2"))["disk"]["files"]
        self.assertIn("/srv/t/renamed", [one["path"] for one in since_image["changes"] if one["change"] == "added"])

    def test_retention_removes_the_oldest_and_leaves_clones_alone(self):
        sandbox = self.create("--cold", "--memory", "256")
        self.stasis.guest(sandbox, "echo first > /dev/shm/which")
        self.stasis.json("snapshot", "create", sandbox, "point-1")
        clone = self.create("--template", "point-1")
        for number in (2, 3):
            self.stasis.json("snapshot", "create", sandbox, f"point-{number}")
        self.stasis.json("snapshot", "retention", "set", "--sandbox", sandbox, "--keep-last", 1)
        self.stasis.wait_until(lambda: self.points() == ["point-1", "point-3"], "point-2 to go")
        self.assertEqual(self.stasis.guest(clone, "cat /dev/shm/which"), "first")
        self.stasis.json("pause", clone)
        self.stasis.json("resume", clone)
        self.assertEqual(self.points(), ["point-1", "point-3"], "a clone still stands on it")
        self.stasis.cli("rm", clone)
        self.stasis.wait_until(lambda: self.points() == ["point-3"], "point-1 to go after its clone")
        self.stasis.json("snapshot", "create", sandbox, "point-4")
        self.stasis.wait_until(lambda: self.points() == ["point-4"], "point-3 to go")
        self.stasis.json("snapshot", "retention", "rm", "--sandbox", sandbox)
        self.stasis.json("snapshot", "create", sandbox, "point-5")
        self.assertEqual(self.points(), ["point-4", "point-5"])
        with self.assertRaises(CommandFailed):
            self.stasis.cli("snapshot", "retention", "set", "--sandbox", sandbox)

    def points(self):
        names = [one["name"] for one in self.stasis.json("snapshot", "ls", "--type", "snapshot")["snapshots"]]
        return [name for name in names if name.startswith("point-")]


class VerifyProgressTest(unittest.TestCase):
    """The bar on a terminal moves with each event of the server, however few bytes they are: the server here sends the next one
    only when the one before was seen."""

    def test_the_bar_moves_while_the_server_verifies(self):
        master, terminal = pty.openpty()
        screen = []
        seen = threading.Condition()

        def show(percent):
            with seen:
                return seen.wait_for(lambda: f"{percent} %" in "".join(screen), timeout=30)

        class Server(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            shown = []

            def do_POST(self):
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.send_response(200)
                self.send_header("Content-Type", "application/x-ndjson")
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                for percent in (10, 40, 70):
                    self.event(type="progress", bytes=percent << 20, total_bytes=100 << 20, layers=1, total_layers=2)
                    self.shown.append(show(percent))
                self.event(type="done", snapshots=1, layers=2, frames=3, bytes=100 << 20, damages=0)
                self.wfile.write(b"0\r\n\r\n")

            def event(self, **fields):
                line = json.dumps(fields).encode() + b"\n"
                self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
                self.wfile.flush()

            def log_message(self, *_):
                pass

        def watch():
            with contextlib.suppress(OSError):  # the terminal's other side has been closed
                while piece := os.read(master, 4096):
                    with seen:
                        screen.append(piece.decode(errors="replace"))
                        seen.notify_all()

        watcher = threading.Thread(target=watch)
        watcher.start()
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
            threading.Thread(target=server.serve_forever).start()
            environment = os.environ | {"STASIS_URL": f"http://127.0.0.1:{server.server_port}", "STASIS_TOKEN": "e2b_x"}
            result = subprocess.run([str(BIN / "stasis"), "snapshot", "verify", "--all"], env=environment, stdout=subprocess.PIPE,
                                    stderr=terminal, timeout=120)
            server.shutdown()
        os.close(terminal)
        watcher.join()
        os.close(master)
        self.assertEqual(Server.shown, [True, True, True], "".join(screen))
        self.assertEqual(result.returncode, 0)
        self.assertIn("[###...", "".join(screen))


if __name__ == "__main__":
    unittest.main()
