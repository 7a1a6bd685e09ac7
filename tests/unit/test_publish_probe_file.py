"""Files of probe texts, and what they say of themselves."""

from pathlib import Path

import pytest

from vmpack.errors import UnavailableError
from vmpack.publish.probe_file import write_probe_file


def fake_proc(root: Path, uptime: str = "1000.50 3.2\n") -> Path:
    """A /proc of a machine that is up for so long."""
    root.mkdir()
    (root / "uptime").write_text(uptime)
    return root


def test_a_text_says_until_when_it_holds(tmp_path: Path) -> None:
    """By this line alone a probe knows a fresh text from an old or a cut one."""
    path = tmp_path / "host-system"
    write_probe_file(path, 'A="1"\nB="2"\n', 15, proc=fake_proc(tmp_path / "proc"))
    assert path.read_text() == '# vmpack 1000 1015 11\nA="1"\nB="2"\n'
    assert path.stat().st_mode & 0o777 == 0o644


def test_an_empty_text_is_a_text(tmp_path: Path) -> None:
    """A host without VMs: its probe need not ask libvirt each minute."""
    path = tmp_path / "vm-snapshot"
    write_probe_file(path, "", 15, proc=fake_proc(tmp_path / "proc"))
    assert path.read_text() == "# vmpack 1000 1015 0\n\n"


@pytest.mark.parametrize("uptime", ["", "soon\n"])
def test_without_a_clock_nothing_is_written(tmp_path: Path, uptime: str) -> None:
    """A text without an end would be believed for ever."""
    path = tmp_path / "host-system"
    with pytest.raises(UnavailableError, match="time since boot"):
        write_probe_file(path, 'A="1"\n', 15, proc=fake_proc(tmp_path / "proc", uptime))
    assert not path.exists()
