"""Which policies of offers there are, by name: those that ship, and rivals where the tests are at hand.

Each module of the package tests.benchmarks.grant_rivals has POLICIES (as their authors set them) and SWEEP
(with other margins): names, and what makes a policy for a draw. A name is FAMILY or FAMILY:SETTING.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from vmpack.replay import fixed_grant
from vmpack.replay.choice import chosen, rivals
from vmpack.replay.grant_oracle import GrantOracle
from vmpack.replay.grant_policy import GrantFactory
from vmpack.replay.vmpack_grant import VmpackGrant

RIVALS = "tests.benchmarks.grant_rivals"
OURS = "vmpack"
ORACLE = "oracle"


def grant_policies(bounds: Sequence[float], sweep: bool) -> dict[str, GrantFactory]:
    """All that there are; vmpack's once a bound, as vmpack:BOUND. With `sweep` rivals' other settings."""
    found: dict[str, GrantFactory] = {
        f"{OURS}:{bound:g}": partial(VmpackGrant, bound_ratio=bound) for bound in bounds
    }
    found[ORACLE] = GrantOracle
    for module in (fixed_grant, *rivals(RIVALS)):
        found.update(module.POLICIES)
        if sweep:
            found.update(module.SWEEP)
    return found


def named_grants(words: Sequence[str], bounds: Sequence[float], sweep: bool) -> dict[str, GrantFactory]:
    """Those that are asked for: `all`, a family, or one of its settings. Raises UsageError for none."""
    return chosen(words, grant_policies(bounds, sweep))
