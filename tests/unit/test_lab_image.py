"""How an image is put together, without downloads."""

from __future__ import annotations

import gzip
import lzma
import platform
import subprocess
from pathlib import Path

import pytest

from vmpack.errors import AccessError, UnavailableError
from vmpack.lab import image, packages
from vmpack.lab.image import _module_bytes, _module_name, build_image, image_cache
from vmpack.lab.initramfs import Initramfs
from vmpack.lab.packages import HostFiles, find_packages, find_tool, run_tool


def test_equal_contents_make_equal_archives() -> None:
    """The cache would fill with copies, and two machines could not compare results."""
    one, other = Initramfs(), Initramfs()
    one.add_file("bin/a", b"1", executable=True)
    one.add_link("bin/sh", "a")
    other.add_link("/bin/sh", "a")
    other.add_file("/bin/a", b"1", executable=True)

    assert one.to_bytes() == other.to_bytes()


def test_the_archive_is_what_the_kernel_unpacks(tmp_path: Path) -> None:
    """One wrong field and the guest panics before its first line."""
    archive = Initramfs()
    archive.add_file("usr/lib/deep/file", b"content", executable=True)
    archive.add_link("link", "usr/lib")
    path = tmp_path / "archive"
    path.write_bytes(archive.to_bytes())

    with path.open("rb") as file:
        subprocess.run(
            ["cpio", "-id", "--quiet", "--no-absolute-filenames"], stdin=file, cwd=tmp_path, check=True
        )

    assert (tmp_path / "usr/lib/deep/file").read_bytes() == b"content"
    assert (tmp_path / "usr/lib/deep/file").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "link/deep/file").is_file()


def test_modules_are_unpacked_whatever_the_distribution_packs_them_with(tmp_path: Path) -> None:
    """Ubuntu ships .ko.zst, others .xz or .gz: busybox's insmod takes none of them."""
    packed = {
        "m.ko": b"elf",
        "m.ko.gz": gzip.compress(b"elf"),
        "m.ko.xz": lzma.compress(b"elf"),
        "m.ko.zst": subprocess.run(["zstd", "-qc"], input=b"elf", capture_output=True, check=True).stdout,
    }
    for name, content in packed.items():
        path = tmp_path / name
        path.write_bytes(content)
        assert (_module_name(path), _module_bytes(path)) == ("m.ko", b"elf")


def test_another_architecture_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """An ARM user must not wait for a download to learn that the guests are x86_64."""
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")

    with pytest.raises(UnavailableError, match="aarch64"):
        find_packages()


def test_a_missing_tool_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bare machine lacks kmod: people need the package's name, not Python's traceback."""
    monkeypatch.setattr(packages, "_PATH", "/does/not/exist")

    with pytest.raises(UnavailableError) as caught:
        find_tool("depmod")

    assert caught.value.hint == "install the package kmod"


def test_a_failed_tool_is_quoted_with_the_hint() -> None:
    """Without package lists apt-get fails: its last line and the cure belong together."""
    with pytest.raises(UnavailableError) as caught:
        run_tool("ls", "/does/not/exist", hint="make it")

    assert "No such file or directory" in caught.value.message
    assert caught.value.hint == "make it"


def test_other_distributions_learn_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """On EL the packages cannot be fetched apart: the error must say what dnf should install."""
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: {"ID": "rocky", "ID_LIKE": "rhel fedora"})
    monkeypatch.setattr(platform, "release", lambda: "0.0-none")

    with pytest.raises(UnavailableError, match="vmlinuz") as caught:
        find_packages()

    assert "dnf install busybox qemu-guest-agent" in caught.value.hint


def test_derived_distributions_use_their_parents_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Mint user has Ubuntu's packages, and Debian's kernel name would not be found there."""
    for fields, family in (
        ({"ID": "linuxmint", "ID_LIKE": "ubuntu debian"}, "ubuntu"),
        ({"ID": "debian"}, "debian"),
        ({"ID": "arch"}, None),
    ):
        monkeypatch.setattr(platform, "freedesktop_os_release", lambda fields=fields: fields)
        assert packages._family() == family


def test_the_cache_can_be_moved(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Home folders may be small or read-only."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("VMPACK_CACHE_DIR", raising=False)
    assert image_cache() == tmp_path / "vmpack/lab"

    monkeypatch.setenv("VMPACK_CACHE_DIR", "/bigger")
    assert image_cache() == Path("/bigger")


def test_a_home_that_cannot_be_written_does_not_matter(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A service user's home may be somebody else's: the lab would end in a traceback."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setenv("VMPACK_CACHE_DIR", "")
    monkeypatch.setattr(image, "base_folder", lambda: tmp_path / "labs")

    assert image_cache() == image_cache() == tmp_path / "labs/.images"
    assert (tmp_path / "labs/.images").stat().st_mode & 0o777 == 0o700
    (said,) = caplog.messages
    assert str(tmp_path / "file") in said
    assert "VMPACK_CACHE_DIR" in said


def test_a_cache_that_may_not_be_entered_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A VMPACK_CACHE_DIR below a closed folder would end in a traceback."""

    def refuse(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(image, "find_packages", lambda: HostFiles("key", None))  # type: ignore[arg-type]
    monkeypatch.setattr(Path, "is_dir", refuse)

    with pytest.raises(AccessError) as caught:
        build_image(tmp_path)

    assert "VMPACK_CACHE_DIR" in caught.value.hint
