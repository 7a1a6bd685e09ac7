"""Two writers of the note of one VM's pins at once, on libvirt's own test driver."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.pinned_host import PinnedHost
from tests.waiting import PATIENCE_S, eventually

from vmpack.act import affinity, note_lock, thread_masks
from vmpack.config_keys import LOCKS_FOLDER
from vmpack.model.pins import Pin

HAND, SCHEDULED = Pin("vcpu", 1, "hand", (2,)), Pin("vcpu", 0, "scheduler", (4,))
HOLDER = """
import sys
from pathlib import Path
from vmpack.act import note_lock
note_lock.default_run_dir = lambda: Path(sys.argv[1])
with note_lock.note_lock(sys.argv[2]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def host() -> Iterator[PinnedHost]:
    made = PinnedHost()
    yield made
    made.close()


@pytest.fixture
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the agent and the scheduler have made the directory of locks; nobody gives up."""
    monkeypatch.setattr(note_lock, "default_run_dir", lambda: tmp_path)
    monkeypatch.setattr(note_lock, "PATIENCE_S", PATIENCE_S)
    (tmp_path / LOCKS_FOLDER).mkdir(0o711)
    return tmp_path


def between(
    patch: pytest.MonkeyPatch, module: Any, other: Callable[[], None], waits: threading.Event
) -> threading.Thread:
    """`other` begins after `module` has read the note and before it writes it, and gets as far as it can."""
    second = threading.Thread(target=other)
    real = module.write_note

    def late(*arguments: Any) -> None:
        if second.ident is None:
            second.start()
            eventually("the other is through, or waits", lambda: waits.is_set() or not second.is_alive())
        real(*arguments)

    patch.setattr(module, "write_note", late)
    return second


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set as soon as somebody waits for the lock."""
    told = threading.Event()

    def sleep(seconds: float) -> None:
        told.set()
        time.sleep(seconds)

    monkeypatch.setattr(note_lock, "time", SimpleNamespace(monotonic=time.monotonic, sleep=sleep))
    return told


def test_a_pin_by_hand_waits_for_another_hand(
    host: PinnedHost, run_dir: Path, waits: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two pins that are set at the same moment one would be nobody's, for good."""
    second = between(monkeypatch, thread_masks, lambda: host.pin_by_hand(1, 2), waits)
    host.pin_by_hand(0, 4)
    second.join(PATIENCE_S)

    assert host.pins() == (Pin("vcpu", 0, "hand", (4,)), HAND)
    assert list((run_dir / LOCKS_FOLDER).iterdir()) == []


def test_a_pin_by_hand_waits_for_the_scheduler(
    host: PinnedHost, run_dir: Path, waits: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an administrator pins while the scheduler writes would be moved, as nobody's."""
    second = between(monkeypatch, affinity, lambda: host.pin_by_hand(1, 2), waits)
    (outcome,) = host.carry_out(host.change("vcpu", 0, (), (4,)))
    second.join(PATIENCE_S)

    assert outcome.status == "done"
    assert host.pins() == (SCHEDULED, HAND)


def test_another_process_keeps_one_vm_alone_and_not_for_long(
    host: PinnedHost, run_dir: Path, waits: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One program that hangs, or was stopped, would keep every pin of the host where it is."""
    argv = [sys.executable, "-c", HOLDER, str(run_dir), host.uuid]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdin is not None and holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with note_lock.note_lock("another"):
            assert not waits.is_set()
        monkeypatch.setattr(note_lock, "PATIENCE_S", 0.05)
        host.pin_by_hand(1, 2)
        assert waits.is_set()
        holder.kill()
        holder.wait()
        holder.stdin.close()
        waits.clear()
        host.pin_by_hand(0, 4)

    assert not waits.is_set() and host.pins() == (Pin("vcpu", 0, "hand", (4,)), HAND)


@pytest.mark.parametrize("what", ["missing", "anybody's", "a link"])
def test_without_a_directory_of_its_own_it_goes_on(what: str, host: PinnedHost, run_dir: Path) -> None:
    """A pin would be refused where no agent ever ran; or a file be made where somebody else wants it."""
    folder, elsewhere = run_dir / LOCKS_FOLDER, run_dir / "elsewhere"
    if what == "anybody's":
        folder.chmod(0o777)
    else:
        folder.rename(elsewhere)
    if what == "a link":
        folder.symlink_to(elsewhere)
    seen = folder if what == "anybody's" else elsewhere
    before = os.stat(seen).st_mtime_ns
    host.pin_by_hand(1, 2)

    assert host.pins() == (HAND,)
    assert os.stat(seen).st_mtime_ns == before
