"""Which accelerator the lab chooses, on made-up machines."""

from __future__ import annotations

from pathlib import Path

import pytest

from vmpack.lab.accelerator import detect_accelerator


@pytest.fixture
def able_cpu(tmp_path: Path) -> Path:
    """The cpuinfo of a CPU that can run guests."""
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor : 0\nflags\t\t: fpu svm sse\n")
    return cpuinfo


def test_a_cpu_without_the_flags_is_not_asked_further(tmp_path: Path) -> None:
    """On a rented machine /dev/kvm may open and still fail: guests would never start."""
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor : 0\nflags\t\t: fpu sse notsvm\n")

    found = detect_accelerator(Path("/dev/null"), cpuinfo)

    assert (found.kind, found.reason) == ("tcg", "the CPU shows neither vmx nor svm")


def test_a_device_that_is_missing_or_makes_no_machine_means_tcg(tmp_path: Path, able_cpu: Path) -> None:
    """Choosing KVM by the flag alone breaks every container that has no /dev/kvm."""
    missing = detect_accelerator(tmp_path / "kvm", able_cpu)
    useless = detect_accelerator(Path("/dev/null"), able_cpu)

    assert missing.kind == "tcg"
    assert "does not open: No such file" in missing.reason
    assert useless.kind == "tcg"
    assert "makes no virtual machine" in useless.reason


def test_an_unreadable_cpuinfo_means_tcg(tmp_path: Path) -> None:
    """The lab must start where /proc is hidden, only slower."""
    assert detect_accelerator(Path("/dev/null"), tmp_path / "absent").kind == "tcg"
