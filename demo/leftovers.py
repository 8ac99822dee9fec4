"""What a Stasis that used a state directory has left on this host: the tests and the demo want the empty list."""
import contextlib
import json
import os
from pathlib import Path


def _processes(marker):
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if marker in command and "demo/run" not in command:
                yield f"process {entry.name}: {command.strip()}"


def _belongs_to_another(entry, marker):
    """Processes of other Stasis on this host (a test beside this one) name their own state directory."""
    command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return marker not in command and ("--sandbox-dir" in command or "--spare-dir" in command or "/vmm.log" in command)


def _mounts(marker):
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and not _belongs_to_another(entry, marker):
                table = (entry / "mountinfo").read_text()
                if any(marker in line or " fuse.stasis " in line or "/run/stasis-vm" in line for line in table.splitlines()):
                    yield f"mount or mount namespace of process {entry.name}"


def _network_namespaces(marker):
    """Namespaces other than this process's in which a tap0 of ours is: each is held by a process."""
    mine = os.readlink("/proc/self/ns/net")
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if not entry.name.isdigit() or os.readlink(entry / "ns/net") == mine or _belongs_to_another(entry, marker):
                continue
            if "tap0:" in (entry / "net/dev").read_text():
                yield f"network namespace of process {entry.name}"


def _sockets(marker):
    for line in Path("/proc/net/unix").read_text().splitlines():
        if marker in line:
            yield f"unix socket: {line.split()[-1]}"


def _warm_bases(state):
    """Images that the host keeps booted are no leftovers: each is one snapshot with at most two layers, written down here."""
    with contextlib.suppress(FileNotFoundError):
        return len(json.loads((state / "warm.json").read_text()))
    return 0


def _files(state):
    """Of sandboxes, spares and snapshots nothing may stay. The store's images, the database and the server's token may."""
    for directory in ("sandboxes", "spares", "tokens"):
        path = state / directory
        if path.is_dir():
            yield from (f"file: {left}" for left in path.rglob("*"))
    for path in state.rglob("*"):
        if path.name.endswith(".tmp") or path.is_socket():
            yield f"file: {path}"
    layers = list((state / "store/layers").glob("*.raw"))
    snapshots = list((state / "store/snapshots").iterdir()) if (state / "store/snapshots").is_dir() else []
    warm = _warm_bases(state)
    if len(layers) > 1 + 2 * warm:
        yield f"{len(layers)} layers, but only the base image's and those of {warm} warm bases are needed"
    if len(snapshots) > 1 + warm:
        yield f"{len(snapshots)} snapshots, but only the base image and {warm} warm bases are needed"


def leftovers_of(state):
    marker = str(state)
    return [*_processes(marker), *_mounts(marker), *_network_namespaces(marker), *_sockets(marker), *_files(Path(state))]
