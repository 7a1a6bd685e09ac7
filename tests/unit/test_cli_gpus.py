"""`vmpack gpus`: what it shows of which GPU, and how it says that there is none."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
from tests.cli_samples import EVIL_NAME, guest, interval, status
from tests.unit.test_publish_gpu_text import APART, BUSY, IDLE, LOST, SPLIT

from vmpack.cli import agent_access
from vmpack.cli.main import main
from vmpack.model.gpu import Gpu
from vmpack.model.guest import GuestSnapshot

WEB = replace(guest("web"), uuid="uuid-a")


def told(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    gpus: tuple[Gpu, ...],
    *options: str,
    code: int = 0,
    vm: GuestSnapshot = WEB,
) -> str:
    """What the command prints when the agent sees these GPUs."""
    turn = interval((vm,))
    turn = replace(turn, snapshot=replace(turn.snapshot, gpus=gpus))
    monkeypatch.setattr(agent_access, "client", lambda _args: SimpleNamespace(status=lambda: status(turn)))
    assert main(["gpus", *options]) == code
    return capsys.readouterr().out


def test_each_gpu_is_a_row(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """An administrator looks here for a free GPU, and for whom to call about a busy one."""
    rows = told(monkeypatch, capsys, (BUSY, IDLE, APART)).splitlines()

    (busy,) = [row for row in rows if "NVIDIA A100" in row]
    assert [word in busy for word in ("80 GiB", "20.0 GiB", "38 %", "44 C", "210 W", "web", "node 1")] == [
        True
    ] * 7
    (idle,) = [row for row in rows if "nobody" in row]
    assert "16 GiB" in idle
    (apart,) = [row for row in rows if "0000:5e:00.0" in row]
    assert "web" in apart


def test_mig_instances_have_rows_of_their_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A split GPU is used in parts: one row would hide the free ones."""
    rows = told(monkeypatch, capsys, (SPLIT,)).splitlines()

    (first,) = [row for row in rows if row.split()[:1] == ["3:0"]]
    (second,) = [row for row in rows if row.split()[:1] == ["3:1"]]
    assert "web" in first and "nobody" in second


def test_a_gpu_that_cannot_be_read_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Monitoring scripts go by the exit code."""
    assert "GPU-2 cannot be read: GPU is lost" in told(monkeypatch, capsys, (BUSY, LOST), code=3)


def test_no_gpu_is_explained(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """An empty table leaves open whether there is no GPU, no driver, or no module."""
    assert "no GPU: none: NVIDIA's driver is not there" in told(monkeypatch, capsys, ())
    assert "not there" in json.loads(told(monkeypatch, capsys, (), "--json"))["why"]


def test_json_keeps_its_form(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Scripts pick a free GPU from `idle`."""
    record = json.loads(told(monkeypatch, capsys, (BUSY, IDLE, SPLIT), "--json"))

    assert record.keys() == {"gpus", "idle", "why"}
    assert record["idle"] == ["GPU-1", "MIG-1"]
    assert record["gpus"][0]["processes"] == [{"pid": 10, "memory_used_bytes": 1 << 30, "vm_uuid": "uuid-a"}]
    assert record["gpus"][0]["utilization_ratio"] == 0.375


def test_no_name_reaches_the_terminal_as_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A VM's owner could move the administrator's cursor."""
    evil = replace(BUSY, name=EVIL_NAME, fault=EVIL_NAME)
    text = told(monkeypatch, capsys, (evil, BUSY), code=3, vm=replace(WEB, name=EVIL_NAME))
    assert "\x1b" not in text and "\u202e" not in text
