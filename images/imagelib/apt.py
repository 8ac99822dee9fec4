"""Debian packages, from the machine's own mirror but with an apt configuration of our own: other sources that the machine
lists, reachable or not, play no part, and nothing of the machine's apt state is read or changed."""

import json
import re
from pathlib import Path

from .common import BuildError, key_of, output, progress, run

SUITE = "bookworm"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


def find_mirrors(etc_apt=Path("/etc/apt")):
    """(mirror, security mirror or None): the first Debian archives named in the machine's apt sources."""
    text = ""
    for source in [etc_apt / "sources.list", *sorted((etc_apt / "sources.list.d").glob("*"))]:
        if source.is_file() and source.suffix in (".list", ".sources"):
            text += "\n".join(line for line in source.read_text(errors="replace").splitlines()
                              if not line.lstrip().startswith("#")) + "\n"
    main = re.search(r"https?://\S+/debian/?(?=\s|$)", text)
    security = re.search(r"https?://\S+/debian-security/?(?=\s|$)", text)
    if not main:
        raise BuildError("no Debian mirror found in /etc/apt; name one with --mirror URL")
    return main.group(0), security.group(0) if security else None


class Apt:
    """apt-get and apt-cache with private sources and lists under `directory`."""

    def __init__(self, directory, mirror, security):
        self.directory = directory
        self.mirror = mirror
        self.security = security
        self._updated = False

    def _options(self):
        d = self.directory
        settings = {
            "Dir::Etc::sourcelist": d / "sources.list", "Dir::Etc::sourceparts": "/dev/null",
            "Dir::State::lists": d / "lists", "Dir::Cache": d / "cache", "APT::Sandbox::User": "root",
            "Acquire::Languages": "none", "APT::Get::List-Cleanup": "false", "Acquire::Retries": "3",
        }
        return [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]

    def update(self):
        if self._updated:
            return
        for part in ("lists/partial", "cache/archives/partial"):
            (self.directory / part).mkdir(parents=True, exist_ok=True)
        lines = [f"deb [signed-by={KEYRING}] {self.mirror} {SUITE} main"]
        if self.security:
            lines.append(f"deb [signed-by={KEYRING}] {self.security} {SUITE}-security main")
        (self.directory / "sources.list").write_text("\n".join(lines) + "\n")
        progress(f"package lists from {self.mirror}")
        run(["apt-get", *self._options(), "update", "-q"])
        self._updated = True

    def kernel_package(self):
        """(package, version) of the kernel that linux-image-cloud-amd64 stands for now."""
        self.update()
        shown = run(["apt-cache", *self._options(), "show", "linux-image-cloud-amd64"])
        depends = re.search(r"^Depends:.*?(linux-image-[0-9]\S*-cloud-amd64)", shown, re.MULTILINE)
        version = re.search(r"^Version: (\S+)", shown, re.MULTILINE)
        if not depends or not version:
            raise BuildError("linux-image-cloud-amd64 names no kernel package; is the mirror a Debian 12 one?")
        return depends.group(1), version.group(1)

    def download(self, package, version, directory):
        """The .deb of that package, downloaded (and verified by apt) into `directory` unless it is there."""
        for present in directory.glob(f"{package}_*.deb"):
            return present
        self.update()
        directory.mkdir(parents=True, exist_ok=True)
        progress(f"download {package} {version}")
        run(["apt-get", *self._options(), "download", f"{package}={version}"], cwd=directory)
        found = sorted(directory.glob(f"{package}_*.deb"))
        if not found:
            raise BuildError(f"apt-get download left no {package}_*.deb in {directory}")
        return found[-1]


def resolve_kernel(apt, record, refresh):
    """Which kernel to use: the recorded choice, so that a second build needs no network, or today's."""
    key = key_of(SUITE, apt.mirror)
    if not refresh and record.exists():
        choice = json.loads(record.read_text())
        if choice.get("key") == key:
            return choice["package"], choice["version"]
    package, version = apt.kernel_package()
    with output(record) as temporary:
        temporary.write_text(json.dumps({"key": key, "package": package, "version": version}) + "\n")
    return package, version
