"""What is read of a VM's XML: exclusions, statistics period, and the owner's policy, whatever it says."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from xml.sax.saxutils import quoteattr

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmpack.act.policy_xml import policy_xml
from vmpack.model.guest import GuestPolicy
from vmpack.model.pins import PINS_NAMESPACE
from vmpack.model.policy_namespace import POLICY_NAMESPACE
from vmpack.observe.domain_facts import DomainFacts, read_facts
from vmpack.observe.policy import read_policy
from vmpack.units import MIB

# As libvirt 9.0 gave it for a real guest.
CONFIGURED = 256 * MIB
REAL = (Path(__file__).parent.parent / "vectors/observe/domain.xml").read_text()


def test_a_real_domain_is_read_whole():
    """Everything that decides whether and how a VM may be packed comes from here."""
    assert read_facts(REAL, REAL) == DomainFacts(
        memory_bytes=256 * MIB,
        configured_bytes=CONFIGURED,
        configured_period_s=1,
        has_balloon=True,
        autodeflate=True,
        stats_period_s=1,
        has_guest_agent=False,
        exclusions=(),
        policy=GuestPolicy(100 * MIB, 2000, 0.3, True, 1790000000.0),
        policy_faults=(),
    )


@pytest.mark.parametrize(
    ("old", "new", "exclusion"),
    [
        ("memballoon model='virtio'", "memballoon model='none'", "no_balloon_device"),
        ("<memory unit", "<memoryBacking><hugepages/></memoryBacking><memory unit", "huge_pages"),
        ("<memory unit", "<memoryBacking><locked/></memoryBacking><memory unit", "locked_memory"),
        ("<clock", "<memoryBacking><source type='file'/></memoryBacking><clock", "file_backed_memory"),
        ("<devices>", "<devices><hostdev mode='subsystem' type='pci'/>", "pci_passthrough"),
        ("<devices>", "<devices><hostdev mode='subsystem' type='mdev'/>", "pci_passthrough"),
        ("<devices>", "<devices><interface type='hostdev'/>", "pci_passthrough"),
        ("<devices>", "<launchSecurity type='sev'/><devices>", "encrypted_memory"),
        ("<devices>", "<maxMemory slots='4' unit='KiB'>1048576</maxMemory><devices>", "memory_hotplug"),
        ("<devices>", "<cputune><vcpupin vcpu='0' cpuset='3'/></cputune><devices>", "dedicated_cpus"),
    ],
)  # fmt: skip
def test_vms_that_ballooning_would_harm_are_known(old, new, exclusion):
    """Their owners paid for what ballooning would take away, or the host would gain nothing."""
    assert read_facts(REAL.replace(old, new, 1)).exclusions == (exclusion,)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("<devices>", "<devices><hostdev mode='subsystem' type='usb'/>"),
        ("<memory unit", "<memoryBacking><source type='memfd'/></memoryBacking><memory unit"),
        ("<devices>", "<cputune><vcpupin vcpu='0' cpuset='0-3'/></cputune><devices>"),
        (">1</vcpu>", ">2</vcpu><cputune><vcpupin vcpu='0' cpuset='3'/></cputune>"),
    ],
)
def test_harmless_settings_exclude_nobody(old, new):
    """Hosts would stay unpacked because of a USB stick."""
    changed = REAL.replace(old, new, 1)

    assert changed != REAL
    assert read_facts(changed).exclusions == ()


@pytest.mark.parametrize(
    ("by", "cpus", "before", "exclusions"),
    [
        ("scheduler", "3", "all", ()),
        ("scheduler", "3", "0-3", ()),
        ("scheduler", "3", "2", ("dedicated_cpus",)),
        ("scheduler", "2", "all", ("dedicated_cpus",)),
        ("hand", "3", "all", ("dedicated_cpus",)),
    ],
)
def test_pins_of_the_vcpu_scheduler_dedicate_nothing(by, cpus, before, exclusions):
    """A VM that vmpack itself has pinned would no longer be packed, until it was unpinned."""
    pin = f"<p:pin thread='vcpu' number='0' by='{by}' cpus='{cpus}' before='{before}'/>"
    note = f"<p:pins xmlns:p='{PINS_NAMESPACE}'>{pin}</p:pins>"
    pinned = REAL.replace("<devices>", "<cputune><vcpupin vcpu='0' cpuset='3'/></cputune><devices>", 1)
    noted = pinned.replace("<metadata>", f"<metadata>{note}", 1)

    assert noted != pinned
    assert read_facts(noted).exclusions == exclusions


def test_a_missing_period_means_never():
    """vmpack would wait for reports that nobody asked the guest for."""
    assert read_facts(REAL.replace("<stats period='1'/>", "")).stats_period_s == 0


def domain(attributes: str) -> ElementTree.Element:
    policy = f"<v:policy xmlns:v='{POLICY_NAMESPACE}' {attributes}/>"
    return ElementTree.fromstring(f"<domain><metadata>{policy}</metadata></domain>")


@pytest.mark.parametrize(
    "attribute",
    [
        "floor='much'", "floor='-1MiB'", "floor=''", "shares='0'", "shares='100001'", "shares='1.5'",
        "headroom='-0.1'", "headroom='nan'", "headroom='inf'", "opt_out='maybe'", "opt_out='YES '",
        "hold_until='1e19'", "hold_until='tomorrow'", "colour='red'", "shares=\"'&lt;&#10;\"",
        f"floor='{'9' * 400}'", f"shares='{'9' * 5000}'", "headroom='1e999'",
        f"shares='1000{' ' * 80}x'",
    ],
)  # fmt: skip
def test_a_bad_setting_counts_as_not_set_and_is_named(attribute):
    """An owner's typing mistake must neither stop the agent nor go unnoticed."""
    policy, faults = read_policy(domain(attribute))

    assert policy == GuestPolicy()
    assert len(faults) == 1
    assert len(faults[0]) < 200 and "\n" not in faults[0]


def test_a_bad_setting_does_not_spoil_the_others():
    """One slip in the shares would silently lift an owner's opt-out."""
    policy, faults = read_policy(domain("opt_out='yes' shares='-1'"))

    assert policy == GuestPolicy(opt_out=True)
    assert len(faults) == 1


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=80))
def test_no_text_in_any_setting_is_an_exception(text):
    """Any owner could stop the packing of a whole host."""
    for name in ("floor", "shares", "headroom", "opt_out", "hold_until"):
        try:
            element = domain(f"{name}={quoteattr(text)}")
        except ElementTree.ParseError:
            return
        read_policy(element)


@given(
    st.builds(
        GuestPolicy,
        floor_bytes=st.none() | st.integers(0, 2**50),
        shares=st.none() | st.integers(1, 100_000),
        headroom_ratio=st.none() | st.floats(0, 5),
        headroom_min_bytes=st.none() | st.integers(0, 2**50),
        opt_out=st.booleans(),
        hold_until_s=st.none() | st.floats(0, 1e18),
        action_until_s=st.none() | st.floats(0, 1e18),
    )
)
def test_what_is_written_is_read_back(policy):
    """A floor set with one command would be another one for the agent."""
    text = policy_xml(policy)

    if text is None:
        assert policy == GuestPolicy()
        return
    element = ElementTree.fromstring(text)
    element.tag = f"{{{POLICY_NAMESPACE}}}{element.tag}"
    root = ElementTree.fromstring("<domain><metadata/></domain>")
    metadata = root.find("metadata")
    assert metadata is not None
    metadata.append(element)
    assert read_policy(root) == (policy, ())


@pytest.mark.parametrize("state", ["connected", "disconnected"])
def test_only_a_guest_agent_at_the_other_end_is_asked(state: str) -> None:
    """libvirt writes an error into its log for every question to an agent that is not there."""
    channel = f"<channel><target name='org.qemu.guest_agent.0' state='{state}'/></channel>"
    facts = read_facts(REAL.replace("</devices>", channel + "</devices>"))

    assert facts.has_guest_agent == (state == "connected")


TWO_CELLS = "<cpu><numa><cell id='0' cpus='0'/><cell id='1' cpus='1'/></numa></cpu>"


@pytest.mark.parametrize(
    ("tune", "nodes"),
    [
        ("<memory mode='strict' nodeset='1'/>", (1,)),
        ("<memory mode='restrictive' nodeset='0,2-3'/>", (0, 2, 3)),
        ("<memory mode='preferred' nodeset='1'/>", ()),
        ("<memory mode='interleave' nodeset='0-1'/>", ()),
        ("<memory mode='strict' placement='auto'/>", ()),
        ("<memory mode='strict' nodeset='0'/><memnode cellid='1' mode='strict' nodeset='2'/>", (0, 2)),
        ("<memory mode='strict' nodeset='0'/><memnode cellid='1' mode='preferred' nodeset='2'/>", ()),
        ("<memnode cellid='1' mode='strict' nodeset='2'/>", ()),
        (
            "<memnode cellid='0' mode='strict' nodeset='1'/><memnode cellid='1' mode='strict' nodeset='2'/>",
            (1, 2),
        ),
        (
            "<memory mode='preferred' nodeset='0'/><memnode cellid='0' mode='strict' nodeset='1'/>"
            "<memnode cellid='1' mode='strict' nodeset='2'/>",
            (1, 2),
        ),
    ],
)
def test_a_vm_is_bound_to_nodes_only_where_all_of_its_memory_is(tune: str, nodes: tuple[int, ...]):
    """A node would be filled beyond what it has, and a QEMU that may not go elsewhere is killed."""
    xml = REAL.replace("<devices>", f"{TWO_CELLS}<numatune>{tune}</numatune><devices>", 1)

    assert read_facts(xml).nodes == nodes
