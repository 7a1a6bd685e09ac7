"""The folder of a lab: private, findable, and short enough for sockets."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vmpack.errors import AccessError, UsageError
from vmpack.lab import state
from vmpack.lab.state import (
    StateFolder,
    base_folder,
    named_pair,
    named_state,
    pair_hosts,
    temporary_pair,
    temporary_state,
)


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place for labs of this test's own."""
    monkeypatch.setattr(state, "base_folder", lambda: tmp_path / "labs")
    return tmp_path / "labs"


def test_only_the_owner_may_enter(base: Path) -> None:
    """The folder's socket gives full control of a libvirt, as root: nobody else may reach it."""
    folder = temporary_state()

    assert folder.root.parent == base
    assert {path.stat().st_mode & 0o777 for path in (base, folder.root, folder.etc)} == {0o700}


def test_what_a_killed_program_left_is_swept_up(base: Path) -> None:
    """Killed test runs would fill /run, which is memory, folder by folder."""
    left, running, young = temporary_state(), temporary_state(), temporary_state()
    left_pair, running_pair = temporary_pair(), temporary_pair()
    host = pair_hosts(running_pair)[1]
    host.prepare()
    locks = [running.take_lock(), host.take_lock()]
    for folder in (left.root, running.root, left_pair, running_pair):
        os.utime(folder, (0, 0))

    temporary_state()
    for lock in locks:
        os.close(lock)

    assert [folder.root.exists() for folder in (left, running, young)] == [False, True, True]
    assert [folder.exists() for folder in (left_pair, running_pair)] == [False, True]


def test_a_folder_that_others_could_have_made_is_refused(base: Path) -> None:
    """In /tmp anybody can make the folder first, with sockets of his own inside."""
    base.mkdir(mode=0o755)
    with pytest.raises(AccessError):
        named_state("default")

    base.rmdir()
    base.symlink_to("/etc")
    with pytest.raises(AccessError):
        named_state("default")


@pytest.mark.parametrize("name", ["", "..", "a/b", "-x", "a b", "x" * 13])
def test_names_that_leave_the_folder_are_refused(base: Path, name: str) -> None:
    """`lab down --name ..` must not delete what is above."""
    with pytest.raises(UsageError):
        named_state(name)


def test_a_pair_and_a_lab_of_one_name_do_not_meet(base: Path) -> None:
    """Ending one would delete the other's folder; and a guest that moved must be found by either host."""
    lab, pair = named_state("default"), named_pair("default")
    a, b = pair_hosts(pair)

    assert len({lab.root, pair, a.root, b.root}) == 4
    assert lab.root not in pair.parents
    assert a.mark == b.mark != lab.mark


def test_what_a_guest_printed_goes_with_it(base: Path) -> None:
    """A guest that moved would seem not to have booted: its new host never saw it print READY."""
    a, b = pair_hosts(temporary_pair())
    for host in (a, b):
        host.prepare()
    a.files.console("g1").write_text("READY 1.5")

    assert b.files.console("g1").read_text() == "READY 1.5"
    assert b.files.control_socket("g1") != a.files.control_socket("g1")


def test_an_ordinary_user_without_a_runtime_folder_gets_one_in_tmp(monkeypatch: pytest.MonkeyPatch) -> None:
    """Login by su or in a container sets no XDG_RUNTIME_DIR: the lab must work there too."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    for value in ("", "relative", "/does/not/exist", "/run/a-very-long-runtime-folder-name/0"):
        monkeypatch.setenv("XDG_RUNTIME_DIR", value)
        assert base_folder() == Path("/tmp/vmpack-lab-1000")


def test_the_longest_names_still_make_sockets() -> None:
    """A unix socket's path ends at 107 bytes: QEMU would not start, with an error nobody understands."""
    root = Path("/tmp/vmpack-lab-1234567890") / ("x" * 12)
    pair = pair_hosts(root.with_suffix(".pair"))[0].root
    monitor = root / "etc/libvirt/qemu/lib/domain-999-12345678901234567890/monitor.sock"

    assert len(str(monitor)) < 108
    assert len(str(StateFolder(root).files.control_socket("x" * 40))) < 108
    assert len(str(StateFolder(pair).files.control_socket("x" * 40))) < 108
