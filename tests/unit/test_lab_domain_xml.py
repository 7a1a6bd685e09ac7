"""The domain XML of lab guests, and the specifications it is made from."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from vmpack.errors import UsageError
from vmpack.lab.accelerator import Accelerator
from vmpack.lab.domain_xml import domain_xml, read_spec
from vmpack.lab.guest_spec import GuestSpec
from vmpack.lab.image import GuestImage
from vmpack.lab.state import GuestFiles
from vmpack.units import KIB, MIB

_IMAGE = GuestImage(Path("/cache/vmlinuz"), Path("/cache/initramfs"), "key")
_FILES = GuestFiles(Path("/run/lab"))
_MARK = "vmpack.lab=/far/away"


def _domain(spec: GuestSpec, kind: str = "tcg") -> ET.Element:
    accelerator = Accelerator("kvm" if kind == "kvm" else "tcg", "")
    return ET.fromstring(domain_xml(spec, _IMAGE, accelerator, Path("/usr/bin/qemu"), _FILES, _MARK))


@pytest.mark.parametrize("name", ["web-1", "a<b>&\"'", "naïve ☃", "x=1 y=2"])
def test_a_name_stays_a_name(name: str) -> None:
    """A name that breaks out of its element could give a guest somebody else's disk."""
    domain = _domain(GuestSpec(name))

    assert domain.findtext("name") == name
    words = domain.findtext("os/cmdline", "").split()
    assert [word for word in words if word.startswith("vmpack.name=")] == [
        f"vmpack.name={GuestSpec(name).file_name}"
    ]
    sockets = [source.get("path", "") for source in domain.iterfind("devices/channel/source")]
    assert [str(Path(socket).parent) for socket in sockets] == ["/run/lab/ctl", "/run/lab/ga"]


def test_what_is_asked_for_is_there() -> None:
    """Tests of policies rely on these switches: a balloon without autodeflate is another experiment."""
    spec = GuestSpec(
        "g", memory_bytes=256 * MIB, vcpus=3, autodeflate=True, free_page_reporting=False, stats_period_s=5
    )
    domain = _domain(spec)
    balloon = domain.find("devices/memballoon")

    assert balloon is not None
    assert balloon.attrib == {"model": "virtio", "autodeflate": "on", "freePageReporting": "off"}
    assert balloon.find("stats[@period='5']") is not None
    assert domain.findtext("memory") == str(256 * MIB // KIB)
    assert domain.findtext("vcpu") == "3"


@pytest.mark.parametrize(
    "spec",
    [GuestSpec("g"), GuestSpec("<g>", 256 * MIB, vcpus=3, autodeflate=True, free_page_reporting=False)],
)
def test_what_was_asked_for_can_be_read_again(spec: GuestSpec) -> None:
    """`lab up` with other options would not notice that guests keep what they were started with."""
    text = domain_xml(spec, _IMAGE, Accelerator("tcg", ""), Path("/usr/bin/qemu"), _FILES, _MARK)
    assert read_spec(text) == spec


def test_what_is_not_asked_for_is_not_there() -> None:
    """A guest without a balloon or an agent is how vmpack is tested to leave such guests alone."""
    domain = _domain(GuestSpec("g", balloon=False, guest_agent=False))

    assert domain.find("devices/memballoon[@model='none']") is not None
    assert domain.find("devices/memballoon/stats") is None
    assert [target.get("name") for target in domain.iterfind("devices/channel/target")] == ["vmpack.ctl.0"]
    assert "vmpack.ports=1" in domain.findtext("os/cmdline", "").split()


def test_kvm_is_used_where_it_works() -> None:
    """Where KVM works the lab must be fast, and must not ask for a translation cache."""
    domain = _domain(GuestSpec("g"), "kvm")

    assert domain.get("type") == "kvm"
    assert domain.find("features/tcg") is None
    assert _domain(GuestSpec("g")).get("type") == "qemu"


@pytest.mark.parametrize(
    "fields",
    [
        {"memory_bytes": 64 * MIB},
        {"vcpus": 0},
        {"name": ""},
        {"name": "../etc"},
        {"name": "a\nb"},
        {"name": ".hidden"},
        {"name": "x" * 41},
        {"name": "☃" * 5},
    ],
)
def test_impossible_guests_are_refused_with_a_way_out(fields: dict[str, object]) -> None:
    """A guest that can never boot would cost people minutes of waiting before they learn it."""
    with pytest.raises(UsageError) as caught:
        GuestSpec(**{"name": "g", **fields})  # type: ignore[arg-type]

    assert caught.value.hint
