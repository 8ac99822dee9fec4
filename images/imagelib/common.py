"""Progress lines, content keys, and outputs that appear whole or not at all."""

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

_start = time.monotonic()


class BuildError(Exception):
    """A failure that the person who runs the builder can understand; printed without a traceback."""


def progress(text):
    print(f"image: {time.monotonic() - _start:6.1f} s  {text}", file=sys.stderr, flush=True)


def run(command, log=None, **options):
    """Runs a command; on failure raises BuildError with the end of its output."""
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                            text=True, errors="replace", check=False, **options)
    if log:
        Path(log).write_text(result.stdout)
    if result.returncode != 0:
        tail = "\n".join(result.stdout.splitlines()[-20:])
        raise BuildError(f"{' '.join(map(str, command))}\nfailed with exit status {result.returncode}:\n{tail}")
    return result.stdout


def key_of(*parts):
    """A short content key of text, bytes and files (given as Path: their content counts, not their name)."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.read_bytes() if isinstance(part, Path) else part if isinstance(part, bytes) else str(part).encode()
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()[:24]


@contextlib.contextmanager
def output(path):
    """Yields a temporary name beside `path`, renamed over it if the block succeeds and removed if it does not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


class Stamps:
    """Remembers, in a file, the key that each output was made from, so that it is made again only when that changes."""

    def __init__(self, path):
        self._path = path
        try:
            self._keys = json.loads(path.read_text())
        except (OSError, ValueError):
            self._keys = {}

    def fresh(self, target, key):
        return target.exists() and self._keys.get(target.name) == key

    def record(self, target, key):
        self._keys[target.name] = key
        with output(self._path) as temporary:
            temporary.write_text(json.dumps(self._keys, indent=1, sort_keys=True) + "\n")
