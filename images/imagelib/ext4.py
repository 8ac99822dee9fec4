"""Turns the tree and the guest daemon into the root disk."""

import os
import shutil
import uuid

from .common import output, run


def build_ext4(tree, guest, target, size_mib, key):
    """Writes the file system with `guest` as /usr/sbin/stasis-guest. No initialisation is left for the guest's kernel to do
    in the background, so an idle guest writes nothing; the same inputs give the same identifiers."""
    installed = tree / "usr/sbin/stasis-guest"
    with output(installed) as temporary:
        shutil.copyfile(guest, temporary)
        temporary.chmod(0o755)
    identity = uuid.uuid5(uuid.NAMESPACE_URL, f"stasis-image:{key}")
    with output(target) as temporary:
        with open(temporary, "wb") as file:
            file.truncate(size_mib << 20)
        options = f"lazy_itable_init=0,lazy_journal_init=0,nodiscard,hash_seed={identity}"
        run(["mkfs.ext4", "-q", "-F", "-b", "4096", "-I", "256", "-m", "0", "-J", "size=16", "-L", "stasis-root", "-U",
             str(identity), "-E", options, "-d", tree, temporary], env={**os.environ, "E2FSPROGS_FAKE_TIME": "1700000000"})
