"""Debian packages, from the machine's own mirror but with an apt configuration of our own: other sources that the machine
lists, reachable or not, play no part, and nothing of the machine's apt state is read or changed."""

import json
import os
import re
import urllib.request
from pathlib import Path

from .common import BuildError, output, progress, run

SUITE = "bookworm"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


def listed_archives(etc_apt=Path("/etc/apt")):
    """(archives, security archives): the Debian ones that the machine's apt sources name, in order, without repeats."""
    text = ""
    for source in [etc_apt / "sources.list", *sorted((etc_apt / "sources.list.d").glob("*"))]:
        if source.is_file() and source.suffix in (".list", ".sources"):
            text += "\n".join(line for line in source.read_text(errors="replace").splitlines()
                              if not line.lstrip().startswith("#")) + "\n"
    main = re.findall(r"https?://\S+/debian/?(?=\s|$)", text, re.MULTILINE)
    security = re.findall(r"https?://\S+/debian-security/?(?=\s|$)", text, re.MULTILINE)
    return list(dict.fromkeys(main)), list(dict.fromkeys(security))


def use_proxy_of_apt():
    """Programs other than apt learn of the proxy that apt is told to use through the environment."""
    shown = run(["apt-config", "shell", "PROXY", "Acquire::http::Proxy"])
    proxy = re.match(r"PROXY='(http[^']*)'", shown)
    if proxy and "http_proxy" not in os.environ:
        os.environ["http_proxy"] = proxy.group(1)


def first_that_answers(archives, suite):
    """The first archive that serves the suite (a single one is not asked); None if none does. A dead one costs at most ten
    seconds."""
    if len(archives) == 1:
        return archives[0]
    for archive in archives:
        url = f"{archive.rstrip('/')}/dists/{suite}/InRelease"
        try:
            with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=10):
                return archive
        except (OSError, ValueError) as error:
            progress(f"{archive} does not answer ({error})")
    return None


class Archives:
    """The Debian archives to use, chosen when they are first needed: a build that finds everything in its cache asks none."""

    def __init__(self, mirror=None):
        self._given = mirror
        self._chosen = None

    def choose(self):
        """(archive, security archive or None)"""
        if not self._chosen:
            use_proxy_of_apt()
            main, security = ([self._given], []) if self._given else listed_archives()
            archive = first_that_answers(main, SUITE)
            if not archive:
                raise BuildError("no Debian archive answers" + (f" ({', '.join(main)})" if main else
                                 ": /etc/apt names none") + "; name one with --mirror URL")
            self._chosen = archive, first_that_answers(security, f"{SUITE}-security")
        return self._chosen


class Apt:
    """apt-get and apt-cache with private sources and lists under `directory`."""

    def __init__(self, directory, archives):
        self.directory = directory
        self._archives = archives
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
        archive, security = self._archives.choose()
        lines = [f"deb [signed-by={KEYRING}] {archive} {SUITE} main"]
        if security:
            lines.append(f"deb [signed-by={KEYRING}] {security} {SUITE}-security main")
        (self.directory / "sources.list").write_text("\n".join(lines) + "\n")
        progress(f"package lists from {archive}")
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
    if not refresh and record.exists():
        choice = json.loads(record.read_text())
        if choice.get("suite") == SUITE:
            return choice["package"], choice["version"]
    package, version = apt.kernel_package()
    with output(record) as temporary:
        temporary.write_text(json.dumps({"suite": SUITE, "package": package, "version": version}) + "\n")
    return package, version
