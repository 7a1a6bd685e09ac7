"""One draw under one policy of offers: who came, what was short, and was more promised than was there.

Balloons are taken as ideal: what is short is what the VMs need in all beyond what the host keeps for VMs.
Each step the policy says its offer; a VM that is to come, comes if its nominal fits in there, else it goes
elsewhere. When the policy wants VMs to leave, or the host is full, such that came leave one reaction time
later.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from vmpack.replay.draw import WARM_UP_S
from vmpack.replay.grant_draw import GrantDraw
from vmpack.replay.grant_policy import GrantFactory, GrantFacts, GrantSeen
from vmpack.replay.simulation import for_vms_bytes

GB = 10**9
HOUR_S = 3600


@dataclass(frozen=True, slots=True)
class GrantScore:
    """What one policy did to one draw, over its scored day."""

    vm_hours: float
    """Of VMs that came into what was offered."""
    gb_hours: float
    """Of their nominals, in 10^9 bytes."""
    short_gbh: float
    """Need beyond what the host keeps for VMs, without what its own VMs alone would lack."""
    migrations: int
    offered: tuple[int, ...]
    """By hour: the moments at which something was offered."""
    over: tuple[int, ...]
    """By hour: those of them at which, had all that was offered been taken, the need within the reaction time
    would have passed what was left."""


@dataclass(slots=True)
class _Host:
    """Who is there now. Numbers are columns of the draw."""

    drawn: GrantDraw
    vms: list[int]
    leaves: dict[int, int] = field(default_factory=dict)
    """At which step VMs that are to leave are gone, by number."""

    def seen(self, step: int, step_s: float, for_vms: int) -> GrantSeen:
        there = np.array(self.vms)
        need, nominal = self.drawn.need_bytes[step, there], self.drawn.nominal_bytes[there]
        leaving = np.isin(there, list(self.leaves)) if self.leaves else np.zeros(len(there), dtype=np.bool_)
        return GrantSeen(step * step_s, there, nominal, need, leaving, self.drawn.own, for_vms)

    def send_away(self, lacking: int, gone_at: int) -> int:
        """Choose who leaves: one whose need cures what is lacking, the smallest such, else the largest.

        What it will need when it is gone is what counts: the choice is as good as can be, for every policy.
        """
        if lacking <= 0:
            return 0
        need = self.drawn.need_bytes[min(gone_at, len(self.drawn.need_bytes) - 1)]
        staying = sorted((int(need[vm]), vm) for vm in self.vms[self.drawn.own :] if vm not in self.leaves)
        sent = 0
        while lacking > 0 and staying:
            place = next((place for place, (size, _) in enumerate(staying) if size >= lacking), -1)
            size, vm = staying.pop(place)
            self.leaves[vm] = gone_at
            lacking -= size
            sent += 1
        return sent

    def highest_need(self, step: int, steps: int) -> int:
        """The most that those who are there now will need in the next steps, as far as they stay."""
        ahead = self.drawn.need_bytes[step + 1 : step + 1 + steps, self.vms].sum(axis=1)
        for vm, gone_at in self.leaves.items():
            first = max(0, gone_at - step - 1)
            ahead[first:] -= self.drawn.need_bytes[step + 1 + first : step + 1 + steps, vm]
        return int(ahead.max())


def run_grant(drawn: GrantDraw, factory: GrantFactory, step_s: float, reaction_s: float) -> GrantScore:
    """Simulate one draw under one policy."""
    policy = factory(GrantFacts(step_s, reaction_s, drawn.need_bytes))
    for_vms = for_vms_bytes(drawn.capacity_bytes)
    host = _Host(drawn, list(range(drawn.own)))
    arrivals = {int(step): drawn.own + place for place, step in enumerate(drawn.arrival_steps)}
    first, last = round(WARM_UP_S / step_s), len(drawn.need_bytes) - 1
    ahead = max(1, round(reaction_s / step_s))
    own_short = np.maximum(drawn.need_bytes[:, : drawn.own].sum(axis=1) - for_vms, 0)
    hours = -(-round((last - first) * step_s) // HOUR_S)
    offered, over = [0] * hours, [0] * hours
    vm_steps = nominal_steps = short_steps = migrations = 0
    for step in range(last):
        seen = host.seen(step, step_s, for_vms)
        said = policy.offer(seen)
        if step < first:
            continue
        full = int(seen.need_bytes[~seen.leaving].sum()) - for_vms
        migrations += host.send_away(max(said.lacking_bytes, full), step + ahead)
        if said.memory_bytes > 0:
            hour = int((step - first) * step_s) // HOUR_S
            offered[hour] += 1
            over[hour] += host.highest_need(step, ahead) > for_vms - said.memory_bytes
        coming = arrivals.get(step)
        if coming is not None and int(drawn.nominal_bytes[coming]) <= said.memory_bytes:
            host.vms.append(coming)
        for vm in [vm for vm, gone_at in host.leaves.items() if gone_at <= step + 1]:
            del host.leaves[vm]
            host.vms.remove(vm)
        need = int(drawn.need_bytes[step + 1, host.vms].sum())
        short_steps += max(0, need - for_vms - int(own_short[step + 1]))
        vm_steps += len(host.vms) - drawn.own
        nominal_steps += int(drawn.nominal_bytes[host.vms[drawn.own :]].sum())
    step_h = step_s / HOUR_S
    return GrantScore(
        vm_steps * step_h,
        nominal_steps * step_h / GB,
        short_steps * step_h / GB,
        migrations,
        tuple(offered),
        tuple(over),
    )
