"""Masks of threads set, noted and undone, on libvirt's own test driver."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import libvirt
import pytest
from tests.fake_libvirt import error
from tests.pinned_host import EVERYWHERE, PinnedHost, plan
from tests.waiting import eventually

from vmpack.act import affinity
from vmpack.act.affinity import AffinityExecutor
from vmpack.act.pinning import drop_pins, put_pins_back
from vmpack.model.pins import Pin
from vmpack.model.thread import ThreadKind
from vmpack.model.vcpu import SetAffinity


@pytest.fixture
def host() -> Iterator[PinnedHost]:
    made = PinnedHost()
    yield made
    made.close()


def test_a_thread_runs_where_it_was_put_and_afterwards_as_before(host: PinnedHost) -> None:
    """VMs would stay bound to CPUs that nobody balances any more once vmpack is gone."""
    host.domain.pinVcpu(1, host.map(0, 2))
    before = host.masks()
    outcomes = host.carry_out(
        host.change("vcpu", 0, (), (4,)),
        host.change("vcpu", 1, (0, 2), (4,)),
        host.change("emulator", 0, (), (0, 4)),
    )
    assert [outcome.status for outcome in outcomes] == ["done"] * 3
    assert host.masks() == {("vcpu", 0): (4,), ("vcpu", 1): (4,), ("emulator", 0): (0, 4)}
    assert host.pins() == (
        Pin("emulator", 0, "scheduler", (0, 4)),
        Pin("vcpu", 0, "scheduler", (4,)),
        Pin("vcpu", 1, "scheduler", (4,), (0, 2)),
    )
    assert {outcome.status for outcome in host.release()} == {"done"}
    assert host.masks() == before
    assert host.pins() == ()


def test_a_thread_that_moves_twice_still_knows_its_first_mask(host: PinnedHost) -> None:
    """A VM would be given back to where vmpack had it last, for good."""
    host.domain.pinVcpu(0, host.map(0, 2))
    host.carry_out(host.change("vcpu", 0, (0, 2), (4,)))
    host.carry_out(host.change("vcpu", 0, (4,), (2,)), host.change("vcpu", 0, (2,), (0,)))
    assert host.pins() == (Pin("vcpu", 0, "scheduler", (0,), (0, 2)),)
    back = host.carry_out(host.change("vcpu", 0, (0,), (), gives_back=True))
    assert back[0].status == "done"
    assert host.masks()["vcpu", 0] == (0, 2) and host.pins() == ()


def test_any_cpu_is_given_back_as_any_cpu(host: PinnedHost) -> None:
    """A VM that nobody pinned would not use a CPU that is switched on later."""
    host.carry_out(host.change("vcpu", 0, (), (4,)))
    host.release()
    assert host.domain.vcpuPinInfo()[0] == (True,) * 8


@pytest.mark.parametrize(
    ("kind", "number", "seen", "wanted", "why"),
    [
        ("vcpu", 0, (2,), (4,), "it runs on"),
        ("vcpu", 0, (), (1, 7), "none of the CPUs 1,7 is on"),
        ("vcpu", 7, (), (4,), "vCPU 7 is not there any more"),
        ("iothread", 1, (), (4,), "I/O thread 1 is not there any more"),
    ],
)
def test_what_is_not_as_it_was_seen_is_left_alone(
    host: PinnedHost, kind: ThreadKind, number: int, seen: tuple[int, ...], wanted: tuple[int, ...], why: str
) -> None:
    """What somebody did in the meantime would be undone, or a thread bound to a CPU that has gone off."""
    before = host.masks()
    refused, done = host.carry_out(host.change(kind, number, seen, wanted), host.change("vcpu", 1, (), (2,)))
    assert (refused.status, done.status) == ("skipped", "done")
    assert why in refused.detail
    assert host.masks() == before | {("vcpu", 1): (2,)}
    assert host.pins() == (Pin("vcpu", 1, "scheduler", (2,)),)


def test_an_io_thread_is_pinned_and_given_back(host: PinnedHost) -> None:
    """Its disks' work would stay on the CPUs that its vCPUs have left."""
    host.domain.addIOThread(3, libvirt.VIR_DOMAIN_AFFECT_LIVE)
    host.domain.pinIOThread(3, host.map(0, 2), libvirt.VIR_DOMAIN_AFFECT_LIVE)
    (outcome,) = host.carry_out(host.change("iothread", 3, (0, 2), (4,)))
    assert outcome.status == "done" and host.masks()["iothread", 3] == (4,)
    host.release()
    assert host.masks()["iothread", 3] == (0, 2)


@pytest.mark.parametrize("ended", [True, False])
def test_a_vm_that_is_gone_or_paused_costs_the_others_nothing(host: PinnedHost, ended: bool) -> None:
    """One VM that ends between look and act would keep all others where they wait."""
    other = host.another("other")
    (other.destroy if ended else other.suspend)()
    change = SetAffinity(host.uuid_of_another, "other", "vcpu", 0, (), (4,))
    refused, done = host.carry_out(change, host.change("vcpu", 0, (), (4,)))
    assert (refused.status, done.status) == ("skipped", "done")
    assert refused.detail == ("the VM is gone" if ended else "the VM is not running")


def test_a_vm_with_a_job_is_left_alone(host: PinnedHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """libvirt would let the call wait until the migration is over, and the whole scheduler with it."""
    monkeypatch.setattr(affinity, "job_name", lambda _domain: "migration out")
    (outcome,) = host.carry_out(host.change("vcpu", 0, (), (4,)))
    assert (outcome.status, outcome.detail) == ("skipped", "another job has the VM: migration out")


def test_a_lost_libvirt_ends_the_plan(host: PinnedHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of hundreds of changes would wait for a libvirt that is not there."""
    fails(monkeypatch, host, "pinVcpu", libvirt.VIR_ERR_RPC)
    outcomes = host.carry_out(host.change("vcpu", 0, (), (4,)), host.change("vcpu", 1, (), (4,)))
    assert [outcome.status for outcome in outcomes] == ["skipped", "skipped"]
    assert "connection to libvirt was lost" in outcomes[1].detail


def test_a_vm_that_hangs_costs_one_deadline_and_its_note_says_enough(
    host: PinnedHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of its vCPUs would hold the others up; and a pin that takes effect late would be nobody's."""
    other, gate = host.another("other"), threading.Event()
    real = libvirt.virDomain.pinVcpu
    asked: list[int] = []

    def late(domain: Any, vcpu: int, cpus: tuple[bool, ...]) -> Any:
        if domain.name() == "test":
            asked.append(vcpu)
            gate.wait()
        return real(domain, vcpu, cpus)

    monkeypatch.setattr(libvirt.virDomain, "pinVcpu", late)
    executor = AffinityExecutor(host.hypervisor, everywhere=lambda: EVERYWHERE, deadline_s=0.2)
    change = SetAffinity(host.uuid_of_another, "other", "vcpu", 0, (), (4,))
    outcomes = executor.carry_out(
        plan(host.change("vcpu", 0, (), (4,)), host.change("vcpu", 1, (), (4,)), change)
    )
    assert [outcome.status for outcome in outcomes] == ["skipped", "skipped", "done"]
    assert asked == [0]
    gate.set()
    eventually("it has taken effect", lambda: host.masks()["vcpu", 0] == (4,))
    monkeypatch.undo()
    host.release()
    assert host.masks()["vcpu", 0] == () and host.pins() == () and _is_free(other)


def _is_free(domain: Any) -> bool:
    return all(domain.vcpuPinInfo()[0])


def test_a_refused_pin_is_told_and_not_forgotten(host: PinnedHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that fails may have done half of its work, and nobody would undo that."""
    with monkeypatch.context() as patch:
        fails(patch, host, "pinVcpu", libvirt.VIR_ERR_OPERATION_FAILED)
        outcomes = host.carry_out(host.change("vcpu", 0, (), (4,)), host.change("vcpu", 1, (), (4,)))
    assert [outcome.status for outcome in outcomes] == ["failed", "failed"]
    assert [pin.cpus for pin in host.pins()] == [(4,), (4,)]
    host.release()
    assert host.pins() == () and host.masks()["vcpu", 0] == ()


class Killed(BaseException):
    """As kill -9, as far as the metadata go."""


@pytest.mark.parametrize("call", ["setMetadata", "pinVcpu"])
@pytest.mark.parametrize("at", [1, 2, 3])
def test_what_a_kill_leaves_is_undone_exactly(
    host: PinnedHost, monkeypatch: pytest.MonkeyPatch, call: str, at: int
) -> None:
    """An agent that dies between its note and its pin would leave VMs bound for good."""
    host.domain.pinVcpu(1, host.map(0, 2))
    before = host.masks()
    with monkeypatch.context() as patch:
        dies(patch, host, call, at)
        try:
            host.carry_out(host.change("vcpu", 0, (), (4,)), host.change("vcpu", 1, (0, 2), (4,)))
            seen = host.masks()
            host.carry_out(*(host.change("vcpu", number, seen["vcpu", number], (2,)) for number in (0, 1)))
        except Killed:
            pass
    host.release()
    assert host.masks() == before and host.pins() == ()


def test_what_somebody_else_changed_since_is_his(host: PinnedHost) -> None:
    """An administrator's pin would vanish with the agent."""
    host.carry_out(host.change("vcpu", 0, (), (4,)), host.change("vcpu", 1, (), (4,)))
    host.domain.pinVcpu(0, host.map(0, 2))
    outcomes = host.release()
    assert sorted(outcome.status for outcome in outcomes) == ["done", "skipped"]
    assert host.masks()["vcpu", 0] == (0, 2) and host.masks()["vcpu", 1] == ()
    assert host.pins() == ()


def test_a_pin_by_hand_is_not_the_scheduler_s(host: PinnedHost) -> None:
    """What an administrator pinned with vmpack itself would be moved or undone by it."""
    host.pin_by_hand(0, 2)
    moved, given = host.carry_out(
        host.change("vcpu", 0, (2,), (4,)), host.change("vcpu", 0, (2,), (), gives_back=True)
    )
    assert (moved.status, given.status) == ("skipped", "skipped")
    assert host.release() == ()
    assert host.masks()["vcpu", 0] == (2,)


def test_a_hand_takes_a_pin_over_and_what_was_before_it(host: PinnedHost) -> None:
    """A VM would leave its host with the scheduler's CPUs as if they had always been its own."""
    host.domain.pinVcpu(0, host.map(0, 2))
    host.carry_out(host.change("vcpu", 0, (0, 2), (4,)))
    host.pin_by_hand(0, 2)
    assert host.pins() == (Pin("vcpu", 0, "hand", (2,), (0, 2)),)
    drop_pins(host.hypervisor, host.uuid)
    assert host.masks()["vcpu", 0] == (0, 2)


def test_pins_are_off_for_a_migration_and_back_where_the_vm_stays(host: PinnedHost) -> None:
    """A destination would get CPUs that were chosen for another host, or refuse the VM for want of them."""
    host.domain.pinVcpu(1, host.map(0, 2))
    host.carry_out(host.change("vcpu", 0, (), (4,)), host.change("vcpu", 1, (0, 2), (4,)))
    pins = drop_pins(host.hypervisor, host.uuid)
    assert (host.masks()["vcpu", 0], host.masks()["vcpu", 1], host.pins()) == ((), (0, 2), ())
    put_pins_back(host.hypervisor, host.uuid, pins)
    assert host.pins() == pins
    host.release()
    assert (host.masks()["vcpu", 0], host.masks()["vcpu", 1]) == ((), (0, 2))


def test_cpus_that_have_gone_off_are_not_put_back(host: PinnedHost) -> None:
    """A VM could never leave its host again."""
    host.carry_out(host.change("vcpu", 0, (), (4,)))
    host.note(Pin("vcpu", 0, "scheduler", (4,), (1, 7)))
    drop_pins(host.hypervisor, host.uuid)
    assert host.masks()["vcpu", 0] == ()


Meanwhile = Callable[[PinnedHost], None]


def meanwhile(patch: pytest.MonkeyPatch, host: PinnedHost, at: str, does: Meanwhile) -> None:
    """Another process does this right before we first `at` something of a VM."""
    real, to_come = getattr(affinity, at), [does]

    def late(*arguments: Any) -> Any:
        if to_come:
            to_come.pop()(host)
        return real(*arguments)

    patch.setattr(affinity, at, late)


def hand_pins_1(host: PinnedHost) -> None:
    host.note(*(pin for pin in host.pins() if pin.key != ("vcpu", 1)), Pin("vcpu", 1, "hand", (2,)))
    host.domain.pinVcpu(1, host.map(2))


def hand_lets_1_go(host: PinnedHost) -> None:
    host.note(*(pin for pin in host.pins() if pin.key != ("vcpu", 1)))
    host.domain.pinVcpu(1, (True,) * 8)


@pytest.mark.parametrize("at", ["set_mask", "read_masks"])
@pytest.mark.parametrize("does", [hand_pins_1, hand_lets_1_go])
def test_what_another_process_notes_meanwhile_of_other_threads_stays(
    host: PinnedHost, monkeypatch: pytest.MonkeyPatch, at: str, does: Meanwhile
) -> None:
    """A pin by hand would be nobody's, and moved; or one that was taken off be noted for ever."""
    host.carry_out(host.change("vcpu", 0, (), (4,)), host.change("vcpu", 1, (), (4,)))
    meanwhile(monkeypatch, host, at, does)
    (outcome,) = host.carry_out(host.change("vcpu", 0, (4,), (2,)))
    by_hand = (Pin("vcpu", 1, "hand", (2,)),) if does is hand_pins_1 else ()
    assert outcome.status == "done"
    assert host.pins() == (Pin("vcpu", 0, "scheduler", (2,)), *by_hand)


def test_a_thread_that_another_process_takes_over_meanwhile_is_its(
    host: PinnedHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An administrator's pin, set while the scheduler pins the VM, would be overwritten or forgotten."""
    meanwhile(monkeypatch, host, "set_mask", hand_pins_1)
    outcomes = host.carry_out(host.change("vcpu", 0, (), (4,)), host.change("vcpu", 1, (), (4,)))
    assert [outcome.status for outcome in outcomes] == ["done", "skipped"]
    assert host.pins() == (Pin("vcpu", 0, "scheduler", (4,)), Pin("vcpu", 1, "hand", (2,)))
    assert host.masks()["vcpu", 1] == (2,)


def test_a_mask_of_ours_that_came_last_is_noted_as_ours(
    host: PinnedHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pin of the scheduler would stay for good, because the note speaks of one that does not hold."""
    meanwhile(monkeypatch, host, "set_mask", hand_pins_1)
    host.carry_out(host.change("vcpu", 1, (), (4,)))
    assert host.pins() == (Pin("vcpu", 1, "scheduler", (4,)),)
    host.release()
    assert host.masks()["vcpu", 1] == () and host.pins() == ()


def test_a_vm_s_note_is_put_right_before_the_next_vm_s_turn(
    host: PinnedHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For as long as a plan takes, a note would name a mask that no longer holds as ours."""
    host.another("other")
    host.carry_out(host.change("vcpu", 0, (), (4,)))
    real, seen = affinity.set_mask, list[tuple[Pin, ...]]()

    def looks(domain: Any, *arguments: Any) -> None:
        seen.append(host.pins())
        real(domain, *arguments)

    monkeypatch.setattr(affinity, "set_mask", looks)
    host.carry_out(
        host.change("vcpu", 0, (4,), (2,)), SetAffinity(host.uuid_of_another, "other", "vcpu", 0, (), (4,))
    )
    assert seen == [
        (Pin("vcpu", 0, "scheduler", (2,), (), (4,)),),
        (Pin("vcpu", 0, "scheduler", (2,)),),
    ]


def test_no_vm_no_outcome(host: PinnedHost) -> None:
    """A release of an idle host would fail."""
    host.domain.destroy()
    assert AffinityExecutor(host.hypervisor, everywhere=lambda: EVERYWHERE).release() == ()


def test_whoever_asks_is_told_of_changes(host: PinnedHost) -> None:
    """The next look would take a pin of ours for somebody else's, by an old note."""
    changed: list[str] = []
    executor = AffinityExecutor(host.hypervisor, everywhere=lambda: EVERYWHERE, changed=changed.append)
    executor.carry_out(plan(host.change("vcpu", 0, (), (4,))))
    assert changed == [host.uuid]


def fails(patch: pytest.MonkeyPatch, host: PinnedHost, call: str, code: int) -> None:
    def refuse(*_arguments: Any) -> None:
        raise error(code)

    patch.setattr(libvirt.virDomain, call, refuse)


def dies(patch: pytest.MonkeyPatch, host: PinnedHost, call: str, at: int) -> None:
    """The `at`-th such call kills before it is done."""
    real: Callable[..., Any] = getattr(libvirt.virDomain, call)
    calls: list[str] = []

    def maybe(*arguments: Any) -> Any:
        calls.append(call)
        if len(calls) == at:
            raise Killed
        return real(*arguments)

    patch.setattr(libvirt.virDomain, call, maybe)
