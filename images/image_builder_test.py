#!/usr/bin/env python3
"""Tests of the image builder's own formats; run by ctest."""

import struct
import sys
import tempfile
import unittest
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent))

from imagelib import apt, common, initrd, kernel  # noqa: E402


class Lz4(unittest.TestCase):
    def test_literals_and_matches(self):
        # 4 literals "abcd", a match of 8 from 4 back, then 1 last literal.
        self.assertEqual(kernel.lz4_block(bytes([0x44]) + b"abcd" + b"\x04\x00" + b"\x10" + b"!"), b"abcdabcdabcd!")

    def test_overlapping_match_repeats(self):
        self.assertEqual(kernel.lz4_block(bytes([0x1F]) + b"x" + b"\x01\x00" + b"\x05" + b"\x00"), b"x" * 25)

    def test_long_lengths(self):
        literals = bytes(range(256)) * 2
        block = bytes([0xF0, 255, 512 - 15 - 255]) + literals
        self.assertEqual(kernel.lz4_block(block), literals)

    def test_match_before_the_start_is_an_error(self):
        with self.assertRaises(common.BuildError):
            kernel.lz4_block(bytes([0x14]) + b"a" + b"\x09\x00" + b"\x00")

    def test_frames_of_several_blocks(self):
        block = bytes([0x30]) + b"abc"
        frame = kernel.LZ4_LEGACY + (struct.pack("<I", len(block)) + block) * 2
        self.assertEqual(kernel.decompress(frame + struct.pack("<I", 6)), b"abcabc")

    def test_unknown_payloads_are_named(self):
        with self.assertRaisesRegex(common.BuildError, "zstd"):
            kernel.decompress(b"\x28\xb5\x2f\xfd....")
        with self.assertRaisesRegex(common.BuildError, "unknown compression"):
            kernel.decompress(b"??????")


def bzimage(payload):
    image = bytearray(0x400)
    image[0x1F1] = 1
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", image, 0x206, 0x20F)
    struct.pack_into("<II", image, 0x248, 8, len(payload))
    return bytes(image) + b"12345678" + payload + b"rest"


class Kernel(unittest.TestCase):
    def test_payload_is_found_through_the_header(self):
        elf = b"\x7fELF" + b"x" * 11
        block = bytes([0xF0, 0]) + elf
        payload = kernel.LZ4_LEGACY + struct.pack("<I", len(block)) + block + struct.pack("<I", len(elf))
        self.assertEqual(kernel.extract_vmlinux(bzimage(payload)), elf)

    def test_other_files_are_refused(self):
        with self.assertRaisesRegex(common.BuildError, "HdrS"):
            kernel.extract_vmlinux(b"\0" * 4096)

    def test_modules_come_after_what_they_need(self):
        package = kernel.KernelPackage.__new__(kernel.KernelPackage)
        package._modules = {name: b"\0license=GPL\0depends=" + needs + b"\0" for name, needs in
                            {"net": b"ring,fail-over,builtin", "ring": b"", "fail_over": b"ring", "other": b""}.items()}
        self.assertEqual([name for name, _ in package.modules(["net", "ring"])], ["ring", "fail_over", "net"])


def read_cpio(archive):
    """{name: (mode, content)} of a newc archive, in order."""
    entries, at = {}, 0
    while True:
        assert archive[at:at + 6] == b"070701", f"no entry at {at}"
        fields = [int(archive[at + 6 + 8 * i:at + 14 + 8 * i], 16) for i in range(13)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        name = archive[at + 110:at + 110 + name_size - 1].decode()
        start = (at + 110 + name_size + 3) // 4 * 4
        if name == "TRAILER!!!":
            return entries
        entries[name] = mode, archive[start:start + size]
        at = (start + size + 3) // 4 * 4


class Initrd(unittest.TestCase):
    def test_entries(self):
        archive = initrd.build_initrd(b"program", [("one", b"m" * 5), ("two", b"")])
        entries = read_cpio(archive)
        self.assertEqual(entries["init"], (0o100755, b"program"))
        self.assertEqual(entries["modules/one.ko"], (0o100644, b"mmmmm"))
        self.assertEqual(entries["modules.list"][1], b"/modules/one.ko\n/modules/two.ko\n")
        self.assertEqual(entries["proc"][0], 0o40755)
        self.assertLess(list(entries).index("modules"), list(entries).index("modules/one.ko"))
        self.assertEqual(len(archive) % 512, 0)


class Apt(unittest.TestCase):
    def test_archives_of_both_kinds_of_sources(self):
        with tempfile.TemporaryDirectory() as directory:
            etc = Path(directory)
            (etc / "sources.list.d").mkdir()
            (etc / "sources.list").write_text("# deb http://old/debian x main\ndeb [a=b] http://one/debian bookworm main\n"
                                              "deb http://vendor/debian-tools stable main\n")
            (etc / "sources.list.d/x.sources").write_text("Types: deb\nURIs: https://two/debian/\nSuites: bookworm\n\n"
                                                          "URIs: http://one/debian-security\n")
            self.assertEqual(apt.listed_archives(etc), (["http://one/debian", "https://two/debian/"],
                                                        ["http://one/debian-security"]))

    def test_a_dead_archive_is_passed_over(self):
        self.assertIsNone(apt.first_that_answers(["http://127.0.0.1:9/debian", "http://127.0.0.1:9/x/debian"], "bookworm"))
        self.assertEqual(apt.first_that_answers(["http://127.0.0.1:9/debian"], "bookworm"), "http://127.0.0.1:9/debian")


class Outputs(unittest.TestCase):
    def test_a_failed_output_leaves_the_old_one(self):
        with tempfile.TemporaryDirectory() as directory:
            target = Path(directory) / "file"
            target.write_text("old")
            with self.assertRaises(RuntimeError):
                with common.output(target) as temporary:
                    temporary.write_text("half")
                    raise RuntimeError
            self.assertEqual(target.read_text(), "old")
            self.assertEqual(len(list(Path(directory).iterdir())), 1)

    def test_stamps_know_what_is_fresh(self):
        with tempfile.TemporaryDirectory() as directory:
            target = Path(directory) / "file"
            stamps = common.Stamps(Path(directory) / "stamps")
            stamps.record(target, "k1")
            self.assertFalse(stamps.fresh(target, "k1"))
            target.write_text("x")
            again = common.Stamps(Path(directory) / "stamps")
            self.assertTrue(again.fresh(target, "k1"))
            self.assertFalse(again.fresh(target, "k2"))


if __name__ == "__main__":
    unittest.main()
