"""Writes an initramfs: a cpio archive in the "newc" form. Not compressed: unpacking costs more than reading it."""

import stat


def _entry(number, name, mode, data=b"", rdev=(0, 0)):
    encoded = name.encode() + b"\0"
    fields = [number, mode, 0, 0, 1, 0, len(data), 0, 0, rdev[0], rdev[1], len(encoded), 0]
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + encoded
    head += b"\0" * (-len(head) % 4)
    return head + data + b"\0" * (-len(data) % 4)


def build_initrd(init, modules):
    """The archive: /init, /modules/*.ko, and /modules.list with their paths in load order."""
    entries = [(name, stat.S_IFDIR | 0o755, b"", (0, 0)) for name in ("dev", "proc", "sys", "newroot", "modules")]
    entries.append(("dev/console", stat.S_IFCHR | 0o600, b"", (5, 1)))
    entries.append(("init", stat.S_IFREG | 0o755, init, (0, 0)))
    for name, content in modules:
        entries.append((f"modules/{name}.ko", stat.S_IFREG | 0o644, content, (0, 0)))
    listing = "".join(f"/modules/{name}.ko\n" for name, _ in modules)
    entries.append(("modules.list", stat.S_IFREG | 0o644, listing.encode(), (0, 0)))
    archive = b"".join(_entry(number, *entry) for number, entry in enumerate(entries, start=1))
    archive += _entry(0, "TRAILER!!!", 0)
    return archive + b"\0" * (-len(archive) % 512)
