"""What the root disk holds: a small Debian made by debootstrap, kept as a directory in the cache. Any change of this file
makes it anew."""

import os
import shutil
from pathlib import Path

from .apt import KEYRING, SUITE
from .common import key_of, progress, run

PACKAGES = ["bash", "ca-certificates", "procps", "python3-minimal"]
# Not needed inside a sandbox, and most of the size of a minimal Debian.
EMPTIED = ["usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "usr/share/lintian",
           "var/cache/apt", "var/lib/apt/lists", "var/cache/debconf", "var/log", "boot", "tmp", "run", "dev"]
USER = "user"


def _empty(directory):
    for entry in directory.iterdir() if directory.is_dir() else []:
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _customise(tree):
    for name in EMPTIED:
        _empty(tree / name)
    etc = tree / "etc"
    shutil.rmtree(etc / "apt" / "sources.list.d", ignore_errors=True)
    (etc / "apt" / "sources.list").write_text(
        f"deb http://deb.debian.org/debian {SUITE} main\n"
        f"deb http://deb.debian.org/debian-security {SUITE}-security main\n")
    (etc / "machine-id").write_text("")
    (etc / "hostname").write_text("stasis\n")
    (etc / "hosts").write_text("127.0.0.1 localhost\n127.0.1.1 stasis\n::1 localhost\n")
    (etc / "resolv.conf").unlink(missing_ok=True)
    (etc / "resolv.conf").write_text("")
    (etc / "fstab").write_text("# the root is mounted by the initrd\n")
    for name, line in (("passwd", f"{USER}:x:1000:1000:{USER}:/home/{USER}:/bin/bash\n"),
                       ("group", f"{USER}:x:1000:\n"), ("shadow", f"{USER}::19000:0:99999:7:::\n"),
                       ("gshadow", f"{USER}:!::\n")):
        with open(etc / name, "a", encoding="ascii") as file:
            file.write(line)
    home = tree / "home" / USER
    shutil.copytree(etc / "skel", home)
    for path in [home, *home.rglob("*")]:
        os.chown(path, 1000, 1000, follow_symlinks=False)
    for cached in list(tree.rglob("__pycache__")):
        shutil.rmtree(cached)


def debian_tree(cache, archives):
    """The directory with the root's files, made if the cache has none for these packages."""
    tree = cache / f"tree-{key_of(SUITE, ' '.join(PACKAGES), Path(__file__))}"
    if tree.is_dir():
        return tree
    progress(f"debootstrap {SUITE} with {', '.join(PACKAGES)} (about a minute)")
    making = tree.with_name(tree.name + ".making")
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir(parents=True)
    run(["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", f"--keyring={KEYRING}", SUITE, making,
         archives.choose()[0]], log=cache / "debootstrap.log")
    _customise(making)
    making.rename(tree)
    for old in cache.glob("tree-*"):
        if old != tree:
            shutil.rmtree(old, ignore_errors=True)
    return tree
