"""CloudVAMP's rule for offers: a fixed share O of the memory that VMs were promised and do not use.

Its probe tells the scheduler TOTALMEMORY = real + O x sum(nominal - used) (GRyCAP/cloudvamp, cloudvamp.rb),
and the scheduler places VMs by their nominals. So what new VMs can still have is O x sum(nominal - used) over
all VMs, less the nominals that are already promised beyond the host's own memory. It asks nobody to leave: a
host that is full sends VMs away (MIGRATION in its Monitor.py).
"""

from __future__ import annotations

from functools import partial

from vmpack.replay.grant_policy import GrantFactory, GrantFacts, GrantSeen, Offered

FACTORS = (0.6, 0.8, 1.0)
SWEPT = (0.2, 0.4, 0.5, 0.7, 0.75, 0.85, 0.9, 0.925, 0.95, 0.975)


class FixedGrant:
    """See replay/grant_policy.py."""

    def __init__(self, facts: GrantFacts, factor: float) -> None:
        self._factor = factor

    def offer(self, seen: GrantSeen) -> Offered:
        """The share of what is unused, less what was promised of it."""
        unused = int((seen.nominal_bytes - seen.need_bytes).sum())
        promised = int(seen.nominal_bytes[seen.own :].sum())
        return Offered(max(0, int(self._factor * unused) - promised))


POLICIES: dict[str, GrantFactory] = {
    f"fixed:{factor:g}": partial(FixedGrant, factor=factor) for factor in FACTORS
}
SWEEP: dict[str, GrantFactory] = {f"fixed:{factor:g}": partial(FixedGrant, factor=factor) for factor in SWEPT}
