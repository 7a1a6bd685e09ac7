"""Where a lab guest's kernel, modules and programs come from: the distribution's packages, never installed.

Called by `image`. On Debian and Ubuntu the packages are downloaded with apt-get and unpacked into a folder;
elsewhere the host's own kernel, busybox and guest agent serve. Nothing on the machine changes.
"""

import hashlib
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from vmpack.errors import UnavailableError

_PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin", "/usr/local/sbin"))
_KERNEL_PACKAGES = {"debian": "linux-image-cloud-amd64", "ubuntu": "linux-image-virtual"}
_PROGRAM_PACKAGES = ("busybox-static", "qemu-guest-agent")


@dataclass(frozen=True, slots=True)
class GuestFiles:
    """The parts of a guest on disk. `modules_root` is the folder that holds lib/modules."""

    kernel: Path
    kernel_version: str
    modules_root: Path
    busybox: Path
    agent: Path
    libraries: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class DebianPackages:
    """Exact packages to unpack; `key` changes when any of their contents does."""

    names: tuple[str, ...]
    key: str

    def fetch(self, folder: Path) -> GuestFiles:
        """Download and unpack into `folder`, which must be empty. Raises UnavailableError."""
        root = folder / "root"
        downloads = folder / "packages"
        root.mkdir()
        downloads.mkdir()
        _download(self.names, downloads, root)
        boot = root / "boot"
        kernel = next(boot.glob("vmlinuz-*"))
        version = kernel.name.removeprefix("vmlinuz-")
        _join_module_folders(root)
        run_tool("depmod", "-b", str(root), version)
        busybox = _first_of(root, "usr/bin/busybox", "bin/busybox")
        agent = _first_of(root, "usr/sbin/qemu-ga", "usr/bin/qemu-ga")
        try:
            libraries = shared_libraries(agent)
        except UnavailableError:
            _download(_dependencies("qemu-guest-agent"), downloads, root)
            libraries = shared_libraries(
                agent, extra=(root / "usr/lib/x86_64-linux-gnu", root / "lib/x86_64-linux-gnu")
            )
        return GuestFiles(kernel, version, root, busybox, agent, libraries)


@dataclass(frozen=True, slots=True)
class HostFiles:
    """The host's own kernel and programs, for distributions whose packages cannot be fetched apart."""

    key: str
    files: GuestFiles

    def fetch(self, _folder: Path) -> GuestFiles:
        """Nothing to download."""
        return self.files


def find_packages() -> DebianPackages | HostFiles:
    """Choose the source for this machine, without downloading. Raises UnavailableError."""
    if platform.machine() != "x86_64":
        raise UnavailableError(
            f"the lab makes x86_64 guests only, and this machine is {platform.machine()}",
            "run the lab on an x86_64 machine; the agent itself does not need it",
        )
    family = _family()
    if family is None:
        return _host_files()
    for tool in ("apt-get", "apt-cache", "dpkg-deb", "depmod", "modprobe"):
        find_tool(tool)
    return _debian_packages(family)


@cache
def _debian_packages(family: str) -> DebianPackages:
    """Asked once per process: where apt keeps no cache of its own, each answer takes seconds."""
    names = (*_kernel_packages(family), *_PROGRAM_PACKAGES)
    listing = run_tool("apt-get", "--print-uris", "-qq", "download", *names, hint=_APT_HINT)
    return DebianPackages(names, hashlib.sha256(listing.encode()).hexdigest()[:16])


_APT_HINT = "run `apt-get update` as root once, so that the package lists are there"
_EL_HINT = "install them: dnf install busybox qemu-guest-agent kmod (busybox is in EPEL)"
_TOOL_PACKAGES = {
    "depmod": "kmod",
    "modprobe": "kmod",
    "zstd": "zstd",
    "dpkg-deb": "dpkg",
    "apt-get": "apt",
    "apt-cache": "apt",
    "ldd": "libc-bin",
}


def find_tool(name: str) -> str:
    """Path of a program, also from the sbin folders of an ordinary user. Raises UnavailableError."""
    path = shutil.which(name, path=_PATH)
    if path is None:
        raise UnavailableError(
            f"the lab needs {name}", f"install the package {_TOOL_PACKAGES.get(name, name)}"
        )
    return path


def run_tool(name: str, *arguments: str, hint: str = "", folder: Path | None = None) -> str:
    """Run a program and return what it printed. Raises UnavailableError with its last line of complaint."""
    result = subprocess.run(
        [find_tool(name), *arguments],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        env={**os.environ, "LC_ALL": "C"},
        check=False,
    )
    if result.returncode != 0:
        complaint = (
            result.stderr.strip() or result.stdout.strip() or f"exit {result.returncode}"
        ).splitlines()[-1]
        raise UnavailableError(f"{name} {arguments[0]} failed: {complaint}", hint)
    return result.stdout


def shared_libraries(program: Path, extra: Sequence[Path] = ()) -> tuple[Path, ...]:
    """Paths of the libraries a program loads, its loader included. Raises UnavailableError."""
    folders = os.pathsep.join(map(str, extra))
    environment = {**os.environ, "LC_ALL": "C", **({"LD_LIBRARY_PATH": folders} if folders else {})}
    listing = subprocess.run(
        [find_tool("ldd"), str(program)], capture_output=True, text=True, env=environment, check=False
    ).stdout
    missing = re.findall(r"^\s*(\S+) => not found", listing, re.MULTILINE)
    if missing:
        raise UnavailableError(
            f"{program.name} needs {', '.join(missing)}", "install qemu-guest-agent's libraries"
        )
    return tuple(Path(path) for path in re.findall(r"(/\S+) \(0x", listing))


def _family() -> str | None:
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        return None
    names = (release.get("ID", ""), *release.get("ID_LIKE", "").split())
    # Ubuntu is also like Debian, and its derivatives are also like Ubuntu
    return next((name for name in ("ubuntu", "debian") if name in names), None)


def _kernel_packages(family: str) -> tuple[str, ...]:
    """The versioned packages behind the distribution's kernel for virtual machines."""
    image = next(
        (name for name in _dependencies(_KERNEL_PACKAGES[family]) if re.match(r"linux-image-\d", name)), None
    )
    if image is None:
        raise UnavailableError(f"no kernel package behind {_KERNEL_PACKAGES[family]}", _APT_HINT)
    modules = [name for name in _dependencies(image) if re.match(r"linux-modules-\d", name)]
    return image, *modules


def _dependencies(package: str) -> tuple[str, ...]:
    listing = run_tool("apt-cache", "depends", "--no-recommends", "--no-suggests", package, hint=_APT_HINT)
    return tuple(re.findall(r"^\s+\|?Depends: ([^<\s]+)$", listing, re.MULTILINE))


def _download(names: Sequence[str], downloads: Path, root: Path) -> None:
    before = set(downloads.glob("*.deb"))
    # As root apt-get downloads as the user _apt, which may not write here; say so instead of a warning.
    sandbox = ("-o", "APT::Sandbox::User=root") if os.geteuid() == 0 else ()
    run_tool("apt-get", *sandbox, "-qq", "download", *names, hint=_APT_HINT, folder=downloads)
    for package in sorted(set(downloads.glob("*.deb")) - before):
        run_tool("dpkg-deb", "-x", str(package), str(root))


def _join_module_folders(root: Path) -> None:
    """Show modules in /lib and in /usr/lib: packages and kmod do not always mean the same one."""
    old, new = root / "lib/modules", root / "usr/lib/modules"
    there, missing = (new, old) if new.is_dir() else (old, new)
    if not missing.exists():
        missing.parent.mkdir(parents=True, exist_ok=True)
        missing.symlink_to(there)


def _first_of(root: Path, *names: str) -> Path:
    for name in names:
        if (root / name).is_file():
            return root / name
    raise UnavailableError(f"the packages hold no {names[0]}", "report this: the distribution moved the file")


def _host_files() -> HostFiles:
    version = platform.release()
    kernel = Path("/boot") / f"vmlinuz-{version}"
    if not kernel.is_file():
        kernel = Path("/lib/modules") / version / "vmlinuz"
    missing = [str(kernel)] if not os.access(kernel, os.R_OK) else []
    programs = {name: shutil.which(name, path=_PATH) for name in ("busybox", "qemu-ga")}
    missing += [name for name, path in programs.items() if path is None]
    if missing:
        raise UnavailableError(f"the lab needs {', '.join(missing)}", _EL_HINT)
    busybox, agent = (Path(str(path)) for path in programs.values())
    libraries = sorted({*shared_libraries(agent), *shared_libraries(busybox)})
    files = GuestFiles(kernel, version, Path("/"), busybox, agent, tuple(libraries))
    stats = [path.stat() for path in (kernel, busybox, agent)]
    identity = f"{version} {[(stat.st_size, stat.st_mtime_ns) for stat in stats]}"
    return HostFiles(hashlib.sha256(identity.encode()).hexdigest()[:16], files)
