"""`vmpack import`: what becomes of each of CloudVAMP's settings, and of files that are none."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from vmpack import config
from vmpack.cli.import_cloudvamp import RULES
from vmpack.cli.main import main

CVEM = {
    "DATA_FILE": "/srv/cvem/state.dat",
    "SYS_MEM_OFFSET": "65000",
    "MEM_MIN": "131072",
    "MEM_DIFF_TO_CHANGE": "2048",
    "MEM_OVER": "25.0",
    "MEM_MARGIN": "4",
    "COOLDOWN": "12.5",
    "DELAY": "7",
    "MIGRATION_COOLDOWN": "50",
    "HOST_MEM_MARGIN": "204800",
    "MAX_THREADS": "2",
    "USER_FILTER": "9",
    "ONLY_TEST": "True",
    "MIN_FREE_MEMORY": "30720",
    "CHANGE_MEMORY_CMD": "virsh -c 'qemu+ssh://{hostname}/system' setmem one-{vmid} {newmemory}",
    "MONITOR_CLASS": "connectors.one.OpenNebula.MonitorONE",
}
ONE = {"ONE_SERVER": "cloud.example", "ONE_PORT": "2634", "ONE_ID": "oneadmin:a%sSecret"}
EXPECTED = {
    "memory": {
        "floor_min_bytes": "128MiB",
        "dead_band_min_bytes": "2MiB",
        "headroom_ratio": 0.3333,
        "dead_band_ratio": 0.04,
        "calm_s": 12.5,
        "interval_s": 7,
        "fixed_headroom_min_bytes": "30MiB",
    },
    "host": {"reserve_min_bytes": "200MiB"},
    "agent": {"observe_only": True},
    "opennebula": {"endpoint": "http://cloud.example:2634/RPC2"},
}


def written(path: Path, section: str, options: dict[str, str]) -> str:
    """A file in CloudVAMP's form."""
    lines = [f"[{section}]", "# a comment", *(f"{name} = {value}" for name, value in options.items())]
    path.write_text("\n".join(lines))
    return str(path)


def test_every_setting_becomes_ours_or_is_told_why_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An administrator would lose a setting without noticing, or get another one than he had."""
    files = [written(tmp_path / "cvem.cfg", "cvem", CVEM), written(tmp_path / "one.cfg", "one", ONE)]
    assert main(["import", *files]) == 0
    told = capsys.readouterr()
    assert tomllib.loads(told.out) == EXPECTED
    for section, rules in RULES.items():
        for option, rule in rules.items():
            if rule.read is None:
                assert f"{option}: " in told.err, section
    (tmp_path / "out.toml").write_text(told.out)
    assert config.load((tmp_path / "out.toml",)).settings.memory.interval_s == 7


def test_a_port_without_a_server_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command would print nothing at all, as if it had done something."""
    assert main(["import", written(tmp_path / "one.cfg", "one", {"ONE_PORT": "2634"})]) == 0
    assert "ONE_PORT: not taken over" in capsys.readouterr().err


def test_a_password_is_never_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """OpenNebula's password would stand in a file that everybody may read, or in a terminal's history."""
    assert main(["import", written(tmp_path / "one.cfg", "one", ONE)]) == 0
    told = capsys.readouterr()
    assert "Secret" not in told.out + told.err
    assert "0600" in told.err


def test_the_room_that_a_vm_gets_is_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """VMs would be squeezed harder after the change: the two count their percentage from different ends."""
    main(["import", written(tmp_path / "cvem.cfg", "cvem", {"MEM_OVER": "30"})])
    ratio = tomllib.loads(capsys.readouterr().out)["memory"]["headroom_ratio"]
    used = 700
    assert used * (1 + ratio) == pytest.approx(used / (1 - 0.30), rel=0.001)


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("MEM_OVER", "100", "below 100"),
        ("MEM_OVER", "nan", "expected a number"),
        ("MEM_MIN", "-5", "whole number"),
        ("MEM_MIN", "1", "out of range"),
        ("DELAY", "3600", "out of range"),
        ("ONLY_TEST", "perhaps", "True or False"),
        ("MEM_OVERR", "30", "CloudVAMP has no such setting"),
    ],
)
def test_a_senseless_value_is_named_and_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, value: str, expected: str
) -> None:
    """A file that the agent refuses would be printed, or nothing at all for one bad line."""
    file = written(tmp_path / "cvem.cfg", "cvem", {option: value, "COOLDOWN": "10"})
    assert main(["import", file]) == 3
    told = capsys.readouterr()
    assert tomllib.loads(told.out) == {"memory": {"calm_s": 10}}
    assert f"{option}: " in told.err and expected in told.err


def test_an_address_cannot_carry_more_than_an_address(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A setting could smuggle further lines into the configuration."""
    hostile = {"ONE_SERVER": 'a"\n b = "c', "ONE_PORT": "2633"}
    assert main(["import", written(tmp_path / "one.cfg", "one", hostile)]) == 3
    assert tomllib.loads(capsys.readouterr().out) == {}


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", 1),
        (b"\xff\xfe\x00binary", 1),
        (b"no section = 1\n", 1),
        (b"[other]\na = 1\n", 1),
        (b"[cvem\n", 1),
        (b"x" * 2_000_000, 1),
        (None, 2),
    ],
    ids=["empty", "binary", "no section", "another program's", "cut off", "huge", "missing"],
)
def test_another_file_gives_one_clear_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None, code: int
) -> None:
    """A wrong path would end in a traceback, or in an empty configuration that looks like success."""
    file = tmp_path / "file"
    if content is not None:
        file.write_bytes(content)
    assert main(["import", str(file)]) == code
    told = capsys.readouterr()
    assert told.out == ""
    assert str(file) in told.err
    assert len([line for line in told.err.splitlines() if line.startswith("vmpack: ")]) == 1
