"""The machine's lasting facts, as machines of many kinds tell them."""

from pathlib import Path

import pytest

from vmpack.model.machine import Machine
from vmpack.observe.machine import parse_cgroups_version, parse_mhz, read_machine


def tree(root: Path, **texts: str) -> tuple[Path, Path]:
    """A /proc and a /sys with these files."""
    places = {
        "cpuinfo": "proc/cpuinfo",
        "mounts": "proc/mounts",
        "present": "sys/devices/system/cpu/present",
        "top": "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq",
    }
    for name, text in texts.items():
        path = root / places[name]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root / "proc", root / "sys"


def test_a_common_machine(tmp_path: Path) -> None:
    """Capacity in the cloud is made of these figures."""
    proc, sys = tree(
        tmp_path,
        cpuinfo="processor\t: 0\ncpu MHz\t\t: 2599.996\nprocessor\t: 1\ncpu MHz\t\t: 800.0\n",
        mounts="cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\nproc /proc proc rw 0 0\n",
        present="0-3,6\n",
    )
    assert read_machine(proc, sys) == Machine(cpus=5, cpu_mhz=2600, cgroups_version=2)


def test_a_machine_that_tells_nothing(tmp_path: Path) -> None:
    """A host without a single CPU would take no VM; a missing file must not end the agent."""
    found = read_machine(tmp_path, tmp_path)
    assert found.cpus >= 1 and (found.cpu_mhz, found.cgroups_version) == (0, None)


@pytest.mark.parametrize(
    ("cpuinfo", "top_khz", "mhz"),
    [
        ("BogoMIPS : 50.00\n", "3000000\n", 3000),
        ("clock\t\t: 3425.000000MHz\n", "", 3425),
        ("cpu MHz : 99999999\n", "", 0),
        ("cpu MHz : unknown\n", "junk", 0),
        ("", "", 0),
    ],
)
def test_the_speed_where_it_is_told_otherwise(cpuinfo: str, top_khz: str, mhz: int) -> None:
    """ARM tells no MHz, POWER has another word, and nonsense must not reach the scheduler."""
    assert parse_mhz(cpuinfo, top_khz) == mhz


@pytest.mark.parametrize(
    ("mounts", "version"),
    [
        ("c /sys/fs/cgroup/cpu cgroup rw 0 0\nd /sys/fs/cgroup/unified cgroup2 rw 0 0\n", 1),
        ("c /sys/fs/cgroup cgroup2 rw 0 0\n", 2),
        ("cgroup /tmp tmpfs rw 0 0\n\n", None),
    ],
)
def test_the_version_of_control_groups(mounts: str, version: int | None) -> None:
    """OpenNebula reckons CPU shares by it: the wrong one gives a VM a tenth or ten times its weight."""
    assert parse_cgroups_version(mounts) == version
