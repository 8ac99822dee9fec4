"""Takes an uncompressed vmlinux, and modules in load order, out of a Debian kernel package."""

import bz2
import lzma
import re
import struct
import subprocess
import tarfile
import zlib

from .common import BuildError

LZ4_LEGACY = b"\x02\x21\x4c\x18"


def lz4_block(data):
    """Decompresses one LZ4 block."""
    out = bytearray()
    at, end = 0, len(data)
    while at < end:
        token = data[at]
        at += 1
        literals = token >> 4
        if literals == 15:
            while True:
                more = data[at]
                at += 1
                literals += more
                if more != 255:
                    break
        out += data[at:at + literals]
        at += literals
        if at >= end:
            break
        distance = data[at] | data[at + 1] << 8
        at += 2
        length = (token & 15) + 4
        if length == 19:
            while True:
                more = data[at]
                at += 1
                length += more
                if more != 255:
                    break
        start = len(out) - distance
        if distance == 0 or start < 0:
            raise BuildError("damaged LZ4 data in the kernel: a match reaches before the start")
        if distance >= length:
            out += out[start:start + length]
        else:
            pattern = bytes(out[start:])
            out += (pattern * (length // distance + 1))[:length]
    return bytes(out)


def lz4_legacy(data):
    """Decompresses the legacy LZ4 frame (magic, then blocks with a 4-byte length); ends where no block follows."""
    out, at = [], 4
    while at + 4 < len(data):
        (size,) = struct.unpack_from("<I", data, at)
        if size == 0 or at + 4 + size > len(data):
            break
        out.append(lz4_block(data[at + 4:at + 4 + size]))
        at += 4 + size
    return b"".join(out)


def decompress(payload):
    if payload.startswith(LZ4_LEGACY):
        return lz4_legacy(payload)
    if payload.startswith(b"\x1f\x8b"):
        return zlib.decompressobj(31).decompress(payload)
    if payload.startswith(b"\xfd7zXZ\x00"):
        return lzma.LZMADecompressor().decompress(payload)
    if payload.startswith(b"BZh"):
        return bz2.BZ2Decompressor().decompress(payload)
    if payload.startswith(b"\x28\xb5\x2f\xfd"):
        raise BuildError("the kernel's payload is compressed with zstd, which Python 3.11 cannot read: "
                         "use Debian 12's kernel (LZ4)")
    raise BuildError(f"the kernel's payload has an unknown compression (magic {payload[:6].hex()})")


def extract_vmlinux(bzimage):
    """The ELF file inside a bzImage, found through payload_offset and payload_length of its setup header."""
    if bzimage[0x202:0x206] != b"HdrS":
        raise BuildError("not a bzImage: no HdrS in its setup header")
    (protocol,) = struct.unpack_from("<H", bzimage, 0x206)
    if protocol < 0x208:
        raise BuildError(f"boot protocol {protocol:#x} names no payload (2.08 or newer is needed)")
    setup_sectors = bzimage[0x1F1] or 4
    offset, length = struct.unpack_from("<II", bzimage, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    payload = bzimage[start:start + length]
    vmlinux = decompress(payload)
    (expected,) = struct.unpack("<I", payload[-4:])
    if len(vmlinux) != expected or not vmlinux.startswith(b"\x7fELF"):
        raise BuildError(f"the kernel unpacked to {len(vmlinux)} bytes instead of {expected}, or to no ELF file")
    return vmlinux


class KernelPackage:
    """The files of a kernel package that matter here, read from its archive without installing it."""

    def __init__(self, deb):
        self.release = None
        self.bzimage = None
        self._modules = {}
        with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE) as process:
            with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
                for member in archive:
                    self._take(archive, member)
        if process.returncode != 0:
            raise BuildError(f"dpkg-deb cannot read {deb}")
        if not self.bzimage:
            raise BuildError(f"{deb} holds no boot/vmlinuz-*")

    def _take(self, archive, member):
        if not member.isfile():
            return
        kernel = re.fullmatch(r"(?:\./)?boot/vmlinuz-(.+)", member.name)
        if kernel:
            self.release = kernel.group(1)
            self.bzimage = archive.extractfile(member).read()
        elif re.search(r"/kernel/(drivers/(virtio|block|net|char/hw_random)|net/core|lib)/.*\.ko$", member.name):
            name = member.name.rsplit("/", 1)[1][:-3].replace("-", "_")
            self._modules[name] = archive.extractfile(member).read()

    def modules(self, wanted):
        """[(name, content)] of the wanted modules and what they depend on, dependencies first. A module that the kernel
        has built in is not in the package, and is left out."""
        order = []

        def visit(name):
            if name in order or name not in self._modules:
                return
            depends = re.search(rb"\0depends=([^\0]*)\0", self._modules[name])
            for dependency in (depends.group(1).decode().split(",") if depends else []):
                if dependency:
                    visit(dependency.replace("-", "_"))
            order.append(name)

        for name in wanted:
            visit(name)
        return [(name, self._modules[name]) for name in order]
