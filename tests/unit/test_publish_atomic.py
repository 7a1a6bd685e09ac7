"""Files are whole or not there."""

import errno
import os
from pathlib import Path

import pytest

from vmpack.errors import AccessError, UnavailableError, VmpackError
from vmpack.publish.atomic import disk_error, set_aside, sweep_leftovers, write_atomically


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_content_and_mode(tmp_path: Path) -> None:
    """Probes run as another user: a file they cannot read, or read half, puts the host in error."""
    path = tmp_path / "text"
    write_atomically(path, "old\n")
    write_atomically(path, b"new\n", mode=0o640, durable=True)
    assert path.read_bytes() == b"new\n"
    assert path.stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("step", ["fchmod", "fsync", "replace"])
def test_full_disk_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """A full disk must cost the newest state at most, never the last good one."""
    path = tmp_path / "text"
    write_atomically(path, "old\n")
    monkeypatch.setattr(os, step, full_disk)
    with pytest.raises(UnavailableError) as caught:
        write_atomically(path, "new\n", durable=True)
    assert str(path) in caught.value.message
    assert "space" in caught.value.hint
    assert path.read_text() == "old\n"
    assert list(tmp_path.iterdir()) == [path]


def test_missing_directory_is_named(tmp_path: Path) -> None:
    """The administrator is told which path is wrong."""
    with pytest.raises(VmpackError, match="gone"):
        write_atomically(tmp_path / "gone" / "text", "new\n")


@pytest.mark.parametrize(
    ("code", "kind", "hint", "verb"),
    [
        (errno.ENOENT, UnavailableError, "create the directory", "write"),
        (errno.ENOENT, UnavailableError, "path is right", "read"),
        (errno.EACCES, AccessError, "no right to read", "read"),
        (errno.EIO, UnavailableError, "dmesg", "read"),
        (errno.EROFS, UnavailableError, "read-only", "write"),
        (errno.EACCES, AccessError, "no right", "write"),
        (errno.EIO, UnavailableError, "dmesg", "write"),
    ],
)
def test_hint_fits_the_failure(code: int, kind: type[VmpackError], hint: str, verb: str) -> None:
    """Each kind of disk failure has its own way out, and its own exit code."""
    error = disk_error(verb, Path("/somewhere"), OSError(code, os.strerror(code)))
    assert type(error) is kind
    assert hint in error.hint


def test_set_aside_keeps_every_broken_file(tmp_path: Path) -> None:
    """A second broken file must not overwrite the first, which somebody may still want to look at."""
    path = tmp_path / "state.json"
    for content in ("first", "second"):
        path.write_text(content)
        set_aside(path)
    assert not path.exists()
    assert (tmp_path / "state.json.broken-1").read_text() == "first"
    assert (tmp_path / "state.json.broken-2").read_text() == "second"


def test_only_a_killed_writers_leftovers_are_swept(tmp_path: Path) -> None:
    """Each crash would leave a file for ever; sweeping too much would take away what others keep there."""
    write_atomically(tmp_path / "text", "whole")
    kept = {"text", ".text", ".text.backup", ".other.abcd1234", "text.abcd1234", ".text.abcd12345"}
    for name in (kept - {"text"}) | {".text.abcd1234", ".text._0000000"}:
        (tmp_path / name).write_text("half")

    sweep_leftovers(tmp_path / "text")
    sweep_leftovers(tmp_path / "nowhere" / "text")

    assert {path.name for path in tmp_path.iterdir()} == kept
