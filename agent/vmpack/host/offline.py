"""What is done without an agent: `vmpack release` when the agent is dead, its preview, and `vmpack balloon`.

Called by the command line and by the service manager when the agent died for good. Promises that no agent
works on the same libvirt meanwhile, and that the next one repacks nothing that was asked back.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from vmpack.config import Config
from vmpack.errors import VmpackError
from vmpack.host.by_hand import plan_by_hand, refuse_frozen
from vmpack.host.lock import host_locks
from vmpack.host.messages import GivenBack
from vmpack.host.parts import Parts, real_parts
from vmpack.host.service import FOR_EVER_S, find_vm
from vmpack.host.vcpus import Vcpus
from vmpack.model.action import Outcome
from vmpack.model.plan import Plan

log = logging.getLogger(__name__)


def release_offline(config: Config, vm: str | None) -> GivenBack:
    """Give one VM its memory back and hold it; with None give all VMs theirs and freeze the host.

    A state directory that cannot be written costs a warning: the VMs come first. Raises AlreadyRunningError
    while an agent runs, UsageError for an unknown VM, and UnavailableError, AccessError or
    HypervisorLostError when libvirt cannot be reached.
    """
    with _alone(config) as parts:
        _try_to_keep(parts.state.prepare)
        if vm is None:
            _try_to_keep(lambda: parts.state.freeze(True))
        uuids = _chosen(parts, vm)
        if vm is not None:
            guest = find_vm(parts.source.observe(), vm)
            held = dataclasses.replace(guest.policy, hold_until_s=FOR_EVER_S)
            parts.driver.write_policy(guest.uuid, held)
        given, remembered = parts.release.carry_out(parts.state.remembered(), config.settings, uuids)
        if vm is None:
            parts.lessons.forget_all()
        _try_to_keep(lambda: parts.state.save(remembered))
        return dataclasses.replace(given, pins=Vcpus(parts.hypervisor).release(uuids))


def balloon_offline(config: Config, vm: str, size_bytes: int) -> Outcome:
    """Set one VM's balloon by hand and hold the VM, by the rules of an agent. Raises as `release_offline`.

    Raises UsageError, too, for a size that the VM or the host cannot do with, UnavailableError while the host
    is frozen.
    """
    with _alone(config) as parts:
        snapshot = parts.source.observe()
        refuse_frozen(snapshot)
        guest = find_vm(snapshot, vm)
        remembered = parts.state.remembered()
        plan = plan_by_hand(snapshot, guest, size_bytes, remembered, config.settings, parts.decision.plan)
        held = dataclasses.replace(guest.policy, hold_until_s=FOR_EVER_S)
        parts.driver.write_policy(guest.uuid, held)
        outcomes = parts.actuator.carry_out(plan)
        _try_to_keep(lambda: parts.state.save(parts.decision.remember(plan, outcomes, snapshot.time_s)))
        return outcomes[0]


def preview_release(config: Config, vm: str | None) -> Plan:
    """What a release would do now; changes nothing and needs no lock. Raises as `release_offline`."""
    parts = real_parts(config)
    try:
        remembered = parts.state.remembered()
        return parts.release.look(remembered, config.settings, _chosen(parts, vm))
    finally:
        parts.hypervisor.close()


def _try_to_keep(keep: Callable[[], None]) -> None:
    try:
        keep()
    except VmpackError as error:
        log.warning("the next agent may pack these VMs again: %s", error)


@contextmanager
def _alone(config: Config) -> Iterator[Parts]:
    parts = real_parts(config)
    try:
        with host_locks(parts.hypervisor.identity(), config.state_dir):
            yield parts
    finally:
        parts.hypervisor.close()


def _chosen(parts: Parts, vm: str | None) -> frozenset[str] | None:
    return None if vm is None else frozenset({find_vm(parts.source.observe(), vm).uuid})
