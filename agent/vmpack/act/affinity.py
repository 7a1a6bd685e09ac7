"""Carries out what was decided of vCPUs: `AffinityExecutor.carry_out(plan)`, and `release()`.

Promises: each change is checked again right before; what was there before vmpack is noted in the VM before
anything is changed, so that whoever comes next can undo it exactly, also after a kill at any point; and a VM
that is gone, busy, hung or different is an outcome and not an exception.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from vmpack.act.note_lock import note_lock
from vmpack.act.thread_masks import (
    new_pin,
    online_cpus,
    read_masks,
    read_note,
    set_mask,
    write_note,
)
from vmpack.cpu_masks import any_or
from vmpack.errors import GuestBusyError, GuestGoneError, UnavailableError, VmpackError
from vmpack.hypervisor import Hypervisor, find_domain, job_name, translated
from vmpack.model.pins import Pin, format_cpus
from vmpack.model.thread import ThreadKey, thread_name
from vmpack.model.vcpu import AffinityOutcome, AffinityStatus, SetAffinity, VcpuPlan

_BUSY = "another job has the VM"


class AffinityExecutor:
    """Pins threads through one libvirt. Not for use by two threads at once."""

    def __init__(
        self,
        hypervisor: Hypervisor,
        *,
        everywhere: Callable[[], frozenset[int]],
        changed: Callable[[str], None] = lambda _uuid: None,
        deadline_s: float = 2.0,
    ) -> None:
        """`everywhere()`: the CPUs that a VM may run on whom nobody pinned, as the snapshot counts them.

        `changed(uuid)` is called for a VM that may have been changed.
        """
        self._hypervisor = hypervisor
        self._everywhere = everywhere
        self._changed = changed
        self._deadline_s = deadline_s

    def carry_out(self, plan: VcpuPlan) -> tuple[AffinityOutcome, ...]:
        """Do the changes one after the other and say what came of each, in their order.

        Never raises for what a VM or libvirt does.
        """
        return self._do(plan.actions)

    def release(self, uuids: frozenset[str] | None = None) -> tuple[AffinityOutcome, ...]:
        """Undo every pin of the scheduler on these VMs, on all with None, and say what came of each.

        The VMs' own notes say what to undo, so this needs no state and no agent. The note of a pin that
        somebody else has changed since is taken away, the pin stays. Raises what Hypervisor.call raises when
        the VMs cannot be listed.
        """
        noted = self._hypervisor.call("look for pinned VMs", _noted_vms)
        return self._do(
            [
                SetAffinity(uuid, name, *pin.key, pin.cpus, (), gives_back=True)
                for uuid, name, pins in noted
                if uuids is None or uuid in uuids
                for pin in pins
                if pin.by == "scheduler"
            ]
        )

    def _do(self, actions: Sequence[SetAffinity]) -> tuple[AffinityOutcome, ...]:
        everywhere = self._everywhere()
        by_vm: dict[str, list[SetAffinity]] = {}
        for action in actions:
            by_vm.setdefault(action.uuid, []).append(action)
        vms = {uuid: _Vm(changes, everywhere) for uuid, changes in by_vm.items()}
        last = {action.uuid: index for index, action in enumerate(actions)}
        outcomes: list[AffinityOutcome] = []
        lost = ""
        for index, action in enumerate(actions):
            vm, name = vms[action.uuid], thread_name((action.thread, action.number))
            refusal, stays, failed = lost or vm.given_up, bool(lost) or vm.is_busy, False
            if not refusal:
                try:
                    refusal = self._hypervisor.call(
                        f"pin {name} of {action.name}",
                        partial(vm.step, action=action),
                        deadline_s=self._deadline_s,
                    )
                except UnavailableError as error:
                    refusal = lost = f"the connection to libvirt was lost: {error.message}"
                    stays = True
                except GuestGoneError:
                    refusal = vm.given_up = "the VM is gone"
                except GuestBusyError as error:
                    refusal = vm.given_up = error.message
                    stays = vm.is_busy = True
                except VmpackError as error:
                    refusal, failed = error.message, True
            stays = stays or refusal.startswith(_BUSY)
            status: AffinityStatus = "failed" if failed or (stays and action.gives_back) else "skipped"
            outcomes.append(AffinityOutcome(action, status if refusal else "done", refusal))
            if last[action.uuid] == index:
                if not (lost or vm.given_up):
                    self._settle(action.uuid, vm)
                self._changed(action.uuid)
        return tuple(outcomes)

    def _settle(self, uuid: str, vm: _Vm) -> None:
        # What was noted before says too much rather than too little.
        with suppress(VmpackError):
            what = f"note the pins of the VM {uuid}"
            self._hypervisor.call(what, vm.settle, deadline_s=self._deadline_s)


class _Vm:
    """The changes of one VM on their way."""

    def __init__(self, actions: Sequence[SetAffinity], everywhere: frozenset[int]) -> None:
        self.given_up = ""
        """Why nothing more is tried with this VM."""
        self.is_busy = False
        """That is because it does not answer: what it has, it keeps."""
        self._actions = actions
        self._everywhere = everywhere
        self._begun = False
        self._noted: dict[ThreadKey, Pin] = {}
        """As the metadata had it when we last looked or wrote."""
        self._right: dict[ThreadKey, Pin] = {}
        """As they should have it in the end."""
        self._ready: dict[ThreadKey, Pin] = {}
        """Noted, and to be set next."""
        self._set: set[ThreadKey] = set()
        """Those whose masks we have set, or tried to."""

    def step(self, connection: Any, action: SetAffinity) -> str:
        """Do this change; why not, where it is not done. Raises as `translated` does."""
        domain, key = find_domain(connection, action.uuid), action_key(action)
        if refusal := _refusal(domain, action):
            return refusal
        host = online_cpus(connection)
        if self._begun:
            self._look(domain, host[1])
        else:
            # One write for all: of several changes of one thread the first.
            self._note(domain, {action_key(a): a for a in reversed(self._actions)}, host[1])
            self._begun = True
        found = read_masks(domain, [key]).get(key)
        if found is None:
            self._right.pop(key, None)
            return f"{thread_name(key)} is not there any more"
        if action.gives_back:
            return self._give_back(domain, action, found, host)
        if refusal := self._refusal(action, found, host[1]):
            return refusal
        if key not in self._ready:
            self._note(domain, {key: action}, host[1])
        pin = self._ready.pop(key, None)
        if pin is None:
            return "somebody is changing it just now"
        # Where the call fails nobody knows which of the two masks holds.
        self._right[key] = pin
        self._set.add(key)
        set_mask(domain, key, pin.cpus, host)
        self._right[key] = pin._replace(instead_of=())
        return ""

    def settle(self, connection: Any) -> None:
        """Have the metadata say what came of it. Raises as `translated` does."""
        if self._set or self._noted != self._right:
            domain = find_domain(connection, self._actions[0].uuid)
            online = online_cpus(connection)[1]
            with note_lock(domain.UUIDString()):
                self._look(domain, online)
                self._write(domain, self._right)

    def _give_back(
        self, domain: Any, action: SetAffinity, found: tuple[int, ...], host: tuple[int, frozenset[int]]
    ) -> str:
        key = action_key(action)
        pin = self._right.get(key)
        if pin is None or pin.by == "hand":
            return "nothing of the scheduler's is noted for it"
        if not pin.holds(found, host[1]):
            del self._right[key]
            return f"somebody has changed it to {format_cpus(found)} since"
        set_mask(domain, key, pin.before, host)
        del self._right[key]
        return ""

    def _note(self, domain: Any, actions: Mapping[ThreadKey, SetAffinity], online: frozenset[int]) -> None:
        """Write down what these changes will pin, and what was there before, before any of it is done."""
        masks = read_masks(domain, actions)
        with note_lock(domain.UUIDString()):
            self._look(domain, online)
            for key, action in actions.items():
                found = masks.get(key)
                if found is None or action.gives_back or self._refusal(action, found, online):
                    continue
                wanted = action.to_cpus or tuple(sorted(self._everywhere))
                self._ready[key] = new_pin(key, "scheduler", wanted, found, self._right.get(key), online)
            self._write(domain, self._noted | self._ready)

    def _write(self, domain: Any, noted: Mapping[ThreadKey, Pin]) -> None:
        if noted != self._noted:
            write_note(domain, noted.values())
            self._noted = dict(noted)

    def _look(self, domain: Any, online: frozenset[int]) -> None:
        """Read the note again: what others have written since is right, unless a mask of ours came later."""
        now = read_note(domain)
        others = {key for key in now.keys() | self._noted.keys() if now.get(key) != self._noted.get(key)}
        doubtful = others & self._set
        masks = read_masks(domain, doubtful) if doubtful else {}
        for key in others:
            self._ready.pop(key, None)
            theirs, ours = now.get(key), self._right.get(key)
            both = (theirs, ours) if key in masks else ()
            holding = [pin for pin in both if pin is not None and pin.holds(masks[key], online)]
            if holding and holding[0] is ours:
                continue
            if theirs is None:
                self._right.pop(key, None)
            else:
                self._right[key] = theirs
        self._noted = now

    def _refusal(self, action: SetAffinity, found: tuple[int, ...], online: frozenset[int]) -> str:
        """Why this thread must not be pinned so; empty when it may."""
        if any_or(found or self._everywhere, self._everywhere) != action.from_cpus:
            return f"it runs on {format_cpus(found)} now"
        pin = self._right.get(action_key(action))
        if pin is not None and pin.by == "hand" and pin.holds(found, online):
            return "it was pinned by hand"
        if action.to_cpus and not online.intersection(action.to_cpus):
            return f"none of the CPUs {format_cpus(action.to_cpus)} is on"
        return ""


def action_key(action: SetAffinity) -> ThreadKey:
    """The thread that is to be changed."""
    return action.thread, action.number


def _refusal(domain: Any, action: SetAffinity) -> str:
    """Why this VM must not be touched now; empty when it may."""
    import libvirt

    with translated(f"look at the VM {action.name}"):
        state, _reason = domain.state()
    running = state in (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_BLOCKED)
    # A paused VM has its threads, and what it had before vmpack can be put back.
    if not running and not (action.gives_back and state == libvirt.VIR_DOMAIN_PAUSED):
        return "the VM is not running"
    job = job_name(domain)
    return "" if job is None else f"{_BUSY}: {job}"


def _noted_vms(connection: Any) -> list[tuple[str, str, tuple[Pin, ...]]]:
    """Uuid, name and noted pins of the running VMs that have some."""
    import libvirt

    found = []
    for domain in connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE):
        with suppress(GuestGoneError):
            pins = read_note(domain)
            if pins:
                found.append((domain.UUIDString(), domain.name(), tuple(pins.values())))
    return found
