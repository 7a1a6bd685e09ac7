"""Probe texts, read back by the double of OpenNebula's parser."""

import base64
import dataclasses
import zlib
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests import builders, intervals
from tests.opennebula import template
from tests.opennebula.host_record import HostRecord, VmRecord

from vmpack.model.gpu import Gpu
from vmpack.model.interval import Interval
from vmpack.model.plan import Reason
from vmpack.publish.probe_text import CATEGORIES, ProbeSettings, render
from vmpack.units import GIB, KIB

MOST_DATAGRAM_BYTES = 60_000
SETTINGS = ProbeSettings(builders.MACHINE, 0, intervals.VERSION, observe_only=False)


def rendered(interval: Interval, **changes: object) -> dict[str, str]:
    """The texts, which must be what a probe may print."""
    texts = render(interval, dataclasses.replace(SETTINGS, **changes))
    assert all(text.isascii() and (not text or text.endswith("\n")) for text in texts.values())
    return texts


def host_values(interval: Interval, **changes: object) -> dict[str, template.Value]:
    """What OpenNebula takes from host/system."""
    return dict(template.parse(rendered(interval, **changes)["host-system"]))


def vm_values(interval: Interval) -> dict[str, dict[str, template.Value]]:
    """What OpenNebula takes from vm/snapshot, by VM id."""
    found = {}
    for block in template.vectors(template.parse(rendered(interval)["vm-snapshot"]), "VM"):
        monitor = base64.b64decode(block["MONITOR"], validate=True).decode("ascii")
        found[block["ID"]] = dict(template.parse(monitor))
    return found


def packed_turn() -> Interval:
    """A turn in which something is packed and offered."""
    turn, _ = intervals.history_of(5)[-1]
    assert turn.plan.offer.packed_bytes > 0 and turn.plan.offer.memory_bytes > 0
    return turn


def test_host_values_are_in_kib() -> None:
    """The scheduler reads these: bytes in place of KiB would promise a thousandfold of the room."""
    turn = packed_turn()
    values = host_values(turn)
    assert {name: value for name, value in values.items() if not name.startswith("GPU")} == {
        "HYPERVISOR": "kvm",
        "TOTALCPU": "800",
        "CPUSPEED": "2400",
        "TOTALMEMORY": str(turn.snapshot.memory_total_bytes // KIB),
        "CGROUPS_VERSION": "2",
        "PACKEDMEMORY": str(turn.plan.offer.packed_bytes // KIB),
        "OFFEREDMEMORY": str(turn.plan.offer.memory_bytes // KIB),
        "VMPACK_STATE": "ACTIVE",
        "VMPACK_VERSION": intervals.VERSION,
    }


@pytest.mark.parametrize(
    ("frozen", "observe_only", "state"),
    [(False, True, "OBSERVE"), (True, False, "FROZEN"), (True, True, "FROZEN")],
)
def test_state_tells_why_nothing_changes(frozen: bool, observe_only: bool, state: str) -> None:
    """An administrator sees in the cloud itself that a host was frozen or only watches."""
    turn = intervals.interval(intervals.guest(), frozen=frozen)
    assert host_values(turn, observe_only=observe_only)["VMPACK_STATE"] == state


def test_a_pretended_host_has_its_pretended_size() -> None:
    """A host that keeps memory for other things must not have it sold by the cloud."""
    turn = intervals.interval(intervals.guest())
    small = dataclasses.replace(turn.snapshot, pretended_bytes=3 * GIB)
    turn = dataclasses.replace(turn, snapshot=small)
    assert host_values(turn)["TOTALMEMORY"] == str(3 * GIB // KIB)


def test_what_is_granted_raises_capacity() -> None:
    """Where the administrator chose the probe, nothing else tells the scheduler of the packed memory."""
    turn = packed_turn()
    values = host_values(turn, granted_bytes=GIB)
    assert values["TOTALMEMORY"] == str((turn.snapshot.memory_total_bytes + GIB) // KIB)


def test_empty_host_prints_zeros() -> None:
    """OpenNebula keeps a name that is no longer printed for ever, so an empty host must say 0."""
    texts = rendered(intervals.interval())
    assert tuple(texts) == CATEGORIES
    assert template.first(template.parse(texts["host-system"]), "PACKEDMEMORY") == "0"
    assert texts["vm-snapshot"] == ""


def test_every_vm_of_opennebula_has_its_block() -> None:
    """OpenNebula passes over a VM without its number, so its owner would never see what is packed."""
    turn = intervals.interval(intervals.guest(1, "one-41"), intervals.guest(2, "one-7", used=40))
    assert all(len({reason.rule for reason in plan.reasons}) > 1 for plan in turn.plan.guests)
    found = vm_values(turn)
    assert set(found) == {"41", "7"}
    for guest, plan in zip(turn.snapshot.guests, turn.plan.guests, strict=True):
        assert found[guest.name.removeprefix("one-")] == {
            "REALMEMORY": str(guest.balloon_bytes // KIB),
            "MAXMEMORY": str(guest.nominal_bytes // KIB),
            "PACKEDMEMORY": str((guest.nominal_bytes - guest.balloon_bytes) // KIB),
            "VMPACK_FLOOR": str(plan.floor_bytes // KIB),
            "VMPACK_TARGET": str(plan.target_bytes // KIB),
            "VMPACK_STATE": plan.verdict.upper(),
            "VMPACK_REASON": plan.reasons[-1].rule,
        }


@pytest.mark.parametrize("name", ["web-1", "one-", "one-1x", "xone-1", "one-1\n", "one-\u0661", "ONE-1"])
def test_other_vms_are_left_out(name: str) -> None:
    """A VM that somebody made by hand must never pass for another one of the cloud's."""
    assert vm_values(intervals.interval(intervals.guest(1, name))) == {}


def test_a_silent_vm_says_so() -> None:
    """OpenNebula never forgets: without a word, a hung VM would go on looking as it did."""
    turn = intervals.interval(intervals.guest(1, "one-1"))
    seen = dataclasses.replace(turn.snapshot, guests=(), unreadable=(builders.unreadable("one-1", 100),))
    found = vm_values(dataclasses.replace(turn, snapshot=seen))
    assert found["1"] == {
        "REALMEMORY": str(100 * KIB),
        "VMPACK_STATE": "UNREADABLE",
        "VMPACK_REASON": "no_answer",
    }


@given(st.text(min_size=1), st.text(), st.text())
def test_no_text_breaks_the_syntax(name: str, version: str, rule: str) -> None:
    """One syntax error puts the host in ERROR: whatever a VM is called, the text still parses."""
    turn = intervals.interval(intervals.guest(1, name), intervals.guest(2, "one-2"))
    plans = tuple(plan._replace(reasons=(Reason(rule),)) for plan in turn.plan.guests)
    turn = dataclasses.replace(turn, plan=dataclasses.replace(turn.plan, guests=plans))
    values = host_values(turn, version=version)
    assert {"TOTALMEMORY", "PACKEDMEMORY", "VMPACK_STATE", "VMPACK_VERSION"} <= values.keys()
    assert len(vm_values(turn)["2"]) == 7


def with_gpus(turn: Interval, *gpus: Gpu) -> Interval:
    """The same turn on a host with these GPUs."""
    return dataclasses.replace(turn, snapshot=dataclasses.replace(turn.snapshot, gpus=gpus))


def vm_after(*turns: Interval) -> template.Template:
    """What OpenNebula shows of VM 1 after these."""
    record = HostRecord(vms={1: VmRecord(256)})
    for turn in turns:
        record.take_vm_monitor(rendered(turn)["vm-snapshot"])
    return record.vms[1].monitoring


GPU = Gpu(index=0, uuid="GPU-0", utilization_ratio=0.38, vm_uuids=(intervals.uuid_of(1),))
IDLE_GPU = Gpu(index=0, uuid="GPU-0", utilization_ratio=0.0)


def test_a_gpu_that_was_taken_away_leaves_nothing() -> None:
    """OpenNebula never forgets: the owner would see the GPU, and its load, for ever."""
    turn = intervals.interval(intervals.guest(1, "one-1"))
    assert template.first(vm_after(with_gpus(turn, GPU)), "GPU_UTILIZATION") == "38"
    after = vm_after(with_gpus(turn, GPU), with_gpus(turn, IDLE_GPU))
    assert after == vm_after(turn)


def test_a_gpu_that_is_gone_altogether_leaves_nothing() -> None:
    """A host whose driver was taken away, and its agent started anew, would show the last load for ever."""
    turn = intervals.interval(intervals.guest(1, "one-1"))
    machine = dataclasses.replace(builders.MACHINE, has_gpus=True)
    record = HostRecord(vms={1: VmRecord(256)})
    for now in (with_gpus(turn, GPU), turn):
        record.take_vm_monitor(rendered(now, machine=machine)["vm-snapshot"])
    assert record.vms[1].monitoring == vm_after(turn)
    assert "GPU" not in vm_values_text(turn)


def test_what_a_guest_tells_of_a_device_of_its_own_stays() -> None:
    """OpenNebula's own probe asks guests of passed-through devices; ours would take their answer away."""
    has_device = dataclasses.replace(intervals.guest(1, "one-1"), exclusions=("pci_passthrough",))
    assert "GPU" not in vm_values_text(with_gpus(intervals.interval(has_device), IDLE_GPU))


def vm_values_text(turn: Interval) -> str:
    """MONITOR of the only VM."""
    (block,) = template.vectors(template.parse(rendered(turn)["vm-snapshot"]), "VM")
    return base64.b64decode(block["MONITOR"]).decode()


@pytest.mark.parametrize("gpus", [(), (IDLE_GPU,)], ids=["no GPU", "a GPU"])
def test_four_hundred_vms_fit_into_a_datagram(gpus: tuple[Gpu, ...]) -> None:
    """More than a datagram holds does not arrive at all, and monitoring of every VM stops."""
    random = Random(1)
    guests = [
        intervals.guest(
            n,
            f"one-{random.randrange(10**6)}",
            nominal=(nominal := random.randrange(256, 2**18)),
            balloon=(balloon := random.randrange(200, nominal)),
            used=random.randrange(20, balloon - 100),
        )
        for n in range(400)
    ]
    text = rendered(with_gpus(intervals.interval(*guests), *gpus))["vm-snapshot"]
    assert text.count("VM=[") == 400
    assert len(base64.b64encode(zlib.compress(text.encode()))) < MOST_DATAGRAM_BYTES
