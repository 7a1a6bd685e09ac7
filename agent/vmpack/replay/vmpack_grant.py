"""vmpack's own offers in a simulation: the agent's decide.offer, fed from the simulated host."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from vmpack.decide.offer import growth_bytes, needs_of, rises_after
from vmpack.model.plan import HostRises
from vmpack.model.settings import OfferSettings
from vmpack.replay.grant_policy import GrantFacts, GrantSeen, Offered


class _Vm(NamedTuple):
    uuid: str
    nominal_bytes: int
    need_bytes: int


class VmpackGrant:
    """See replay/grant_policy.py. One interval of the agent a step."""

    def __init__(self, facts: GrantFacts, bound_ratio: float) -> None:
        vms = facts.future_need_bytes.shape[1]
        self._settings = OfferSettings(reaction_s=facts.reaction_s, bound_ratio=bound_ratio)
        self._uuids = [f"{number:08d}" for number in range(vms)]
        self._rises: HostRises | None = None
        self._need_bytes: dict[str, int] = {}

    def offer(self, seen: GrantSeen) -> Offered:
        """Learn, as decide.offer does from the agent's snapshots, and offer."""
        vms = [
            _Vm(self._uuids[vm], nominal, need)
            for vm, nominal, need in zip(
                seen.vms.tolist(), seen.nominal_bytes.tolist(), seen.need_bytes.tolist(), strict=True
            )
        ]
        uuids = frozenset(vm.uuid for vm in vms)
        changes = (
            (vm.uuid, vm.nominal_bytes, vm.need_bytes - self._need_bytes.get(vm.uuid, 0)) for vm in vms
        )
        self._rises = rises_after(
            changes, self._need_bytes.keys(), uuids, self._rises, seen.time_s, seen.time_s, self._settings
        )
        self._need_bytes = {vm.uuid: vm.need_bytes for vm in vms}
        free = seen.for_vms_bytes - self._kept_bytes(vms, seen.time_s)
        if free >= 0:
            return Offered(free)
        staying = [vm for vm, leaves in zip(vms, seen.leaving.tolist(), strict=True) if not leaves]
        kept = self._kept_bytes(staying, seen.time_s)
        lacking = max(0, kept - seen.for_vms_bytes)
        # Who leaves takes along what is kept for his growth.
        need = sum(vm.need_bytes for vm in staying)
        return Offered(0, lacking * need // max(1, kept))

    def _kept_bytes(self, vms: Sequence[_Vm], wall_s: float) -> int:
        """What is kept for these VMs: need, growth, and newcomers' nominals."""
        needs, _ = needs_of(vms, self._rises, 0)
        return needs.need_bytes + growth_bytes(needs, self._rises, wall_s, self._settings)
