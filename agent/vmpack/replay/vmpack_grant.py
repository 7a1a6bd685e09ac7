"""vmpack's own offers in a simulation: the agent's decide.offer, fed from the simulated host."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vmpack.decide.host_rises import Change, extent, learned, newcomers
from vmpack.decide.offer import Needs, growth_bytes
from vmpack.model.plan import HostRises
from vmpack.model.settings import OfferSettings
from vmpack.replay.grant_policy import GrantFacts, GrantSeen, Offered


class VmpackGrant:
    """See replay/grant_policy.py. One interval of the agent a step."""

    def __init__(self, facts: GrantFacts, bound_ratio: float) -> None:
        vms = facts.future_need_bytes.shape[1]
        self._settings = OfferSettings(reaction_s=facts.reaction_s, bound_ratio=bound_ratio)
        self._uuids = [f"{number:08d}" for number in range(vms)]
        self._rises: HostRises | None = None
        self._known: frozenset[str] = frozenset()
        self._need_bytes = np.zeros(vms, dtype=np.int64)

    def offer(self, seen: GrantSeen) -> Offered:
        """Learn, as decide.offer does from the agent's snapshots, and offer."""
        settings = self._settings
        uuids = frozenset(self._uuids[vm] for vm in seen.vms.tolist())
        arrived = newcomers(self._rises, self._known, uuids, seen.time_s, settings.reaction_s)
        new = np.array([self._uuids[vm] in arrived for vm in seen.vms.tolist()], dtype=np.bool_)
        more = (seen.need_bytes - self._need_bytes[seen.vms])[~new]
        change = Change(int(more.sum()), int(more.max(initial=0)))
        size = extent(seen.nominal_bytes[~new].tolist())
        self._rises = learned(
            self._rises, change, size, arrived, seen.time_s, seen.time_s, settings.reaction_s
        )
        self._known = uuids
        self._need_bytes[seen.vms] = seen.need_bytes
        free = self._free(seen, new, np.ones(len(seen.vms), dtype=np.bool_))
        lacking = -self._free(seen, new, ~seen.leaving) if free < 0 and seen.leaving.any() else -free
        return Offered(max(0, free), max(0, lacking))

    def _free(self, seen: GrantSeen, new: NDArray[np.bool_], there: NDArray[np.bool_]) -> int:
        known = there & ~new
        need, nominals = int(seen.need_bytes[known].sum()), seen.nominal_bytes[known].tolist()
        unknown = int(seen.nominal_bytes[there & new].sum())
        needs = Needs(need + unknown, need, sum(nominals), extent(nominals))
        growth = growth_bytes(needs, self._rises, seen.time_s, self._settings)
        return seen.for_vms_bytes - need - unknown - growth
