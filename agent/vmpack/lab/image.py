"""The lab guest's image: a kernel and an initramfs, made once in seconds and kept in a cache.

Called by the lab before it starts guests. Promises that a returned image is whole: it is made beside its
place and renamed into it, so builders at the same time and a build cut short do no harm.
"""

import gzip
import logging
import lzma
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from hashlib import sha256
from importlib import resources
from pathlib import Path

from vmpack.errors import AccessError, UnavailableError
from vmpack.lab.initramfs import Initramfs
from vmpack.lab.packages import DebianPackages, GuestFiles, HostFiles, find_packages, find_tool, run_tool
from vmpack.lab.state import base_folder, make_own

log = logging.getLogger(__name__)

_LAYOUT = 1  # raise it when _initramfs places things differently
_MODULES = (
    "virtio_pci", "virtio_balloon", "virtio_console", "virtio_blk", "virtio_net", "virtio_rng",
)  # fmt: skip
_OPTIONAL_MODULES = ("lzo_rle", "zram", "button", "evdev")  # swap and the power button
_SCRIPTS = {"init": "init", "ctl": "bin/ctl", "load": "bin/load", "agent": "bin/agent", "dhcp": "bin/dhcp"}
_TEXTS = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\n",
    "etc/group": "root:x:0:\n",
    "etc/shadow": "root:*:19000:0:99999:7:::\n",
    "etc/os-release": 'ID=vmpack-lab\nNAME="vmpack lab"\nVERSION_ID=1\nPRETTY_NAME="vmpack lab guest"\n',
}
_PROGRAMS = {
    "etc/acpi/PWRF/00000080": "#!/bin/sh\nexec poweroff -f\n",
    "sbin/shutdown": "#!/bin/sh\nexec poweroff -f\n",
}


@dataclass(frozen=True, slots=True)
class GuestImage:
    """A guest that QEMU can boot directly; `key` names the contents."""

    kernel: Path
    initramfs: Path
    key: str


def image_cache() -> Path:
    """The folder that keeps images: VMPACK_CACHE_DIR, or vmpack/lab in the user's cache folder.

    Where that one cannot be written, from now on and with a warning, a folder beside those of the labs.
    Raises AccessError where that cannot be made either.
    """
    own = os.environ.get("VMPACK_CACHE_DIR")
    if own:
        return Path(own)
    usual = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vmpack" / "lab"
    try:
        usual.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=usual).close()
    except OSError as error:
        base = base_folder()
        cache = base / ".images"  # no lab can have this name
        make_own(base)
        make_own(cache)
        log.warning(
            "the image cache %s cannot be written (%s): using %s; set VMPACK_CACHE_DIR to choose another",
            usual, error.strerror, cache,
        )  # fmt: skip
        os.environ["VMPACK_CACHE_DIR"] = str(cache)
        return cache
    return usual


def is_built() -> bool:
    """True when `build_image` would only look the image up. Raises UnavailableError, AccessError."""
    try:
        return (image_cache() / _name(find_packages())).is_dir()
    except PermissionError:
        return False


def build_image(cache: Path | None = None) -> GuestImage:
    """Return the image for this machine, made first where the cache lacks it.

    Raises UnavailableError where a program or a package is missing, AccessError where the cache is not
    writable.
    """
    cache = cache or image_cache()
    source = find_packages()
    name = _name(source)
    place = cache / name
    try:
        if not place.is_dir():
            cache.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix="making-", dir=cache) as folder:
                _make(source, Path(folder), place)
    except PermissionError as error:
        raise AccessError(
            f"the image cache is not writable: {error.filename}",
            "set VMPACK_CACHE_DIR to a folder of yours",
        ) from error
    return GuestImage(place / "vmlinuz", place / "initramfs", name.removeprefix("image-"))


def _name(source: DebianPackages | HostFiles) -> str:
    return f"image-{sha256((source.key + _recipe()).encode()).hexdigest()[:16]}"


def _make(source: DebianPackages | HostFiles, folder: Path, place: Path) -> None:
    files = source.fetch(folder)
    image = folder / "image"
    image.mkdir()
    shutil.copyfile(files.kernel, image / "vmlinuz")
    (image / "initramfs").write_bytes(_initramfs(files))
    image.chmod(0o755)
    try:
        image.rename(place)
    except OSError:
        if not place.is_dir():  # else another builder was first
            raise


def _recipe() -> str:
    """Everything of ours that goes into an image, for its key."""
    scripts = [_guest_file(name) for name in _SCRIPTS]
    return repr((_LAYOUT, _MODULES, _OPTIONAL_MODULES, _SCRIPTS, _TEXTS, _PROGRAMS, scripts))


def _guest_file(name: str) -> bytes:
    return resources.files("vmpack.lab").joinpath("guest", name).read_bytes()


def _initramfs(files: GuestFiles) -> bytes:
    archive = Initramfs()
    for folder in ("dev", "proc", "sys", "root", "tmp", "sbin", "usr/sbin"):
        archive.add_folder(folder)
    archive.add_device("dev/console", 5, 1)
    archive.add_file("bin/busybox", files.busybox.read_bytes(), executable=True)
    archive.add_link("bin/sh", "busybox")
    for name, path in _SCRIPTS.items():
        archive.add_file(path, _guest_file(name), executable=True)
    for path, text in _TEXTS.items():
        archive.add_file(path, text.encode())
    for path, text in _PROGRAMS.items():
        archive.add_file(path, text.encode(), executable=True)
    archive.add_file("usr/sbin/qemu-ga", files.agent.read_bytes(), executable=True)
    for library in files.libraries:
        archive.add_file(f"lib64/{library.name}", library.read_bytes(), executable=True)
    archive.add_link("lib/x86_64-linux-gnu", "../lib64")  # where Debian's loader looks
    modules = _modules(files)
    for module in modules:
        archive.add_file(f"lib/{_module_name(module)}", _module_bytes(module))
    archive.add_file("modules.order", "".join(f"{_module_name(module)}\n" for module in modules).encode())
    return archive.to_bytes()


def _modules(files: GuestFiles) -> list[Path]:
    """Module files in the order in which the kernel must take them; what is built in needs none."""
    order: dict[Path, None] = {}
    arguments = ("-S", files.kernel_version, "-d", str(files.modules_root), "--show-depends")
    for module in (*_MODULES, *_OPTIONAL_MODULES):
        try:
            listing = run_tool("modprobe", *arguments, module)
        except UnavailableError:
            if module in _MODULES:
                raise
            continue
        for line in listing.splitlines():
            verb, _, path = line.strip().partition(" ")
            if verb == "insmod":
                order[Path(path.strip())] = None
    return list(order)


def _module_name(path: Path) -> str:
    return path.name.partition(".ko")[0] + ".ko"


def _module_bytes(path: Path) -> bytes:
    content = path.read_bytes()
    match path.suffix:
        case ".zst":
            return subprocess.run(
                [find_tool("zstd"), "-dqc"], input=content, stdout=subprocess.PIPE, check=True
            ).stdout
        case ".xz":
            return lzma.decompress(content)
        case ".gz":
            return gzip.decompress(content)
        case ".ko":
            return content
    raise UnavailableError(f"kernel module {path.name} is packed in an unknown way", "report this")
