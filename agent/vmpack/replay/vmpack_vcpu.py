"""vmpack itself as a policy of pins: the very decision of the agent, in mode `balance`."""

from __future__ import annotations

from collections.abc import Sequence

from vmpack.decide.vcpu.plan import plan, remember
from vmpack.model.settings import VcpuSettings
from vmpack.model.vcpu import RememberedVcpus, SetAffinity, VcpuSnapshot
from vmpack.replay.vcpu_policy import VcpuFacts


class VmpackVcpu:
    """See replay/vcpu_policy.py."""

    def __init__(self, facts: VcpuFacts) -> None:
        self._settings = VcpuSettings(
            mode="balance", interval_s=facts.interval_s, target_points=facts.target_points
        )
        self._remembered = RememberedVcpus()

    def decide(self, snapshot: VcpuSnapshot) -> Sequence[SetAffinity]:
        """One interval; all that it wants is done."""
        decided = plan(snapshot, self._remembered, self._settings)
        self._remembered = remember(decided, decided.actions, snapshot.time_s)
        return decided.actions
