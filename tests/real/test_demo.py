"""The demo, as people run it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.everyone import environment_for_everyone
from tests.waiting import eventually
from vmpack.units import MIB

NOBODY = 65534


def demo(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "vmpack.cli.main", "demo", *arguments],
        capture_output=True,
        text=True,
        check=False,
        **options,  # type: ignore[call-overload]
    )


def running(word: str) -> list[str]:
    """Command lines of processes that name this word."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if word in line and str(os.getpid()) != path.parent.name:
            lines.append(line)
    return lines


def check(summary: dict[str, float], guests: int) -> None:
    """What the demo promises."""
    assert summary["guests"] == guests
    assert summary["nominal_bytes"] == guests * 256 * MIB
    assert summary["packed_ratio"] >= 0.25
    assert summary["host_rss_before_bytes"] - summary["host_rss_after_bytes"] >= 50 * guests * MIB
    assert summary["ramp_to_bytes"] - summary["ramp_from_bytes"] >= 50 * MIB
    assert summary["guest_oom_kills"] == summary["host_oom_kills"] == 0
    assert summary["still_packed_bytes"] == 0
    assert summary["replay_identical"] is True


def test_the_demo_keeps_its_promise(tmp_path):
    """The first thing that a newcomer runs would fail, or show nothing."""
    done = demo("--guests", "2", "--json", "/dev/stdout", "--keep", str(tmp_path))

    assert done.returncode == 0, done.stderr
    check(json.loads(done.stdout), 2)
    assert "given back" in done.stderr
    assert running(str(tmp_path)) == []
    replayed = subprocess.run(
        [sys.executable, "-m", "vmpack.cli.main", "replay", str(tmp_path / "journal"), "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(replayed.stdout)["identical"] is True


def test_ctrl_c_ends_the_demo_and_leaves_nothing():
    """A newcomer who has seen enough would be left with guests that eat the machine's memory."""
    with subprocess.Popen(
        [sys.executable, "-m", "vmpack.cli.main", "demo", "--guests", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert "1/6" in process.stdout.readline()
        lab_children = eventually("a guest starts", lambda: children_named(process.pid, "qemu-system"))
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=120)

    assert process.returncode == 130
    assert "Traceback" not in said
    assert not any(Path(f"/proc/{pid}").exists() for pid in lab_children)


def children_named(pid: int, word: str) -> list[int]:
    """Descendants of a process whose command line names this word."""
    parents, found = {}, []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    for child in parents:
        above = child
        while above in parents and above != pid:
            above = parents[above]
        try:
            if above == pid and word in Path(f"/proc/{child}/cmdline").read_text():
                found.append(child)
        except OSError:
            continue
    return found


@pytest.mark.parametrize("count", ["1", "9", "two"])
def test_a_wrong_number_of_guests_is_said_in_one_line(count):
    """A typing error would cost a minute of booting, or a traceback."""
    done = demo("--guests", count)

    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.long
@pytest.mark.parametrize("guests", [4, 8])
def test_the_demo_with_more_guests(tmp_path, guests):
    """What holds for two guests would fail for as many as the help offers."""
    done = demo("--guests", str(guests), "--json", str(tmp_path / "demo.json"))

    assert done.returncode == 0, done.stdout + done.stderr
    check(json.loads((tmp_path / "demo.json").read_text()), guests)


@pytest.mark.long
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_the_demo_as_an_ordinary_user():
    """Most people try things without root first, and a service user may even have root's HOME."""
    done = subprocess.run(
        ["/usr/bin/python3", "-m", "vmpack.cli.main", "demo", "--guests", "2", "--json", "-"],
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        env=environment_for_everyone(HOME="/root"),
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    check(json.loads(done.stdout), 2)
