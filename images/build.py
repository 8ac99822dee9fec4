#!/usr/bin/env python3
"""Builds Stasis's base image: kernel, initrd and root disk, from Debian packages and the guest daemon.

Each output is made again only when its inputs change. See images/README.md."""

import argparse
import fcntl
import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.dont_write_bytecode = True

from imagelib import apt, ext4, initrd, kernel, tree  # noqa: E402
from imagelib.common import BuildError, Stamps, key_of, output, progress  # noqa: E402

HERE = Path(__file__).resolve().parent
MODULES = ["virtio_mmio", "virtio_blk", "virtio_net", "virtio_rng"]


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--guest", type=Path, required=True, help="the static stasis-guest program")
    parser.add_argument("--out", type=Path, required=True, help="directory for vmlinux, initrd, rootfs.ext4, image.json")
    parser.add_argument("--cache", type=Path, default=Path("/var/cache/stasis"), help="default: %(default)s")
    parser.add_argument("--size-mib", type=int, default=1024, help="size of the (sparse) root disk; default: %(default)s")
    parser.add_argument("--mirror", help="Debian mirror; default: the one in /etc/apt")
    parser.add_argument("--refresh", action="store_true", help="look for a newer kernel package")
    return parser.parse_args()


def build_kernel(options, packages, stamps):
    """Makes vmlinux, the file `kernel` and the module set; returns (release, key)."""
    package, version = apt.resolve_kernel(packages, options.cache / "kernel.json", options.refresh)
    key = key_of(package, version, HERE / "imagelib/kernel.py", " ".join(MODULES))
    vmlinux, release_file = options.out / "vmlinux", options.out / "kernel"
    modules = options.cache / f"modules-{key}.initrd.json"
    if stamps.fresh(vmlinux, key) and release_file.exists() and modules.exists():
        return release_file.read_text().strip(), key, modules
    deb = packages.download(package, version, options.cache / "packages")
    progress(f"unpack {deb.name}")
    content = kernel.KernelPackage(deb)
    with output(vmlinux) as temporary:
        temporary.write_bytes(kernel.extract_vmlinux(content.bzimage))
    with output(release_file) as temporary:
        temporary.write_text(content.release + "\n")
    chosen = content.modules(MODULES)
    with output(modules) as temporary:
        temporary.write_text(json.dumps([[name, data.hex()] for name, data in chosen]))
    stamps.record(vmlinux, key)
    progress(f"vmlinux {content.release}, {vmlinux.stat().st_size >> 20} MiB; modules {' '.join(n for n, _ in chosen)}")
    return content.release, key, modules


def build_initrd(options, modules, key, stamps):
    target = options.out / "initrd"
    if not stamps.fresh(target, key):
        chosen = [(name, bytes.fromhex(data)) for name, data in json.loads(modules.read_text())]
        with output(target) as temporary:
            temporary.write_bytes(initrd.build_initrd(options.guest.read_bytes(), chosen))
        stamps.record(target, key)
        progress(f"initrd, {target.stat().st_size >> 10} KiB")


def build_rootfs(options, archives, stamps):
    files = tree.debian_tree(options.cache, archives)
    key = key_of(files.name, options.guest, str(options.size_mib), HERE / "imagelib/ext4.py")
    target = options.out / "rootfs.ext4"
    if not stamps.fresh(target, key):
        ext4.build_ext4(files, options.guest, target, options.size_mib, key)
        stamps.record(target, key)
        progress(f"rootfs.ext4, {target.stat().st_size >> 20} MiB, {target.stat().st_blocks >> 11} MiB of it used")
    return key


def write_description(options, release, key):
    files = {name: {"size": (options.out / name).stat().st_size} for name in ("vmlinux", "initrd", "rootfs.ext4")}
    description = {"version": 1, "key": key, "kernel_release": release, "files": files}
    text = json.dumps(description, indent=1) + "\n"
    target = options.out / "image.json"
    if not target.exists() or target.read_text() != text:
        with output(target) as temporary:
            temporary.write_text(text)


def build(options):
    if os.geteuid() != 0:
        raise BuildError("debootstrap needs root: run as root")
    if not options.guest.is_file():
        raise BuildError(f"no guest daemon at {options.guest}: build the target stasis-guest first")
    options.cache = options.cache.resolve()
    options.out = options.out.resolve()
    for directory in (options.cache, options.out):
        directory.mkdir(parents=True, exist_ok=True)
    archives = apt.Archives(options.mirror)
    with open(options.cache / "lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stamps = Stamps(options.out / ".stamps.json")
        release, kernel_key, modules = build_kernel(options, apt.Apt(options.cache / "apt", archives), stamps)
        initrd_key = key_of(kernel_key, options.guest, HERE / "imagelib/initrd.py")
        build_initrd(options, modules, initrd_key, stamps)
        rootfs_key = build_rootfs(options, archives, stamps)
        write_description(options, release, key_of(kernel_key, initrd_key, rootfs_key))
    progress(f"ready in {options.out}")


def main():
    try:
        build(parse_arguments())
    except BuildError as error:
        print(f"images/build.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
