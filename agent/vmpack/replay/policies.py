"""Which memory policies there are, by name: those that ship, and rivals where the tests are at hand.

Each module of the package tests.benchmarks.rivals (where Python finds it, as from the root of the repository)
has POLICIES: names, and what makes a policy for a draw.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vmpack.replay import vmpack_policy
from vmpack.replay.choice import chosen, rivals
from vmpack.replay.cloudvamp_fixed import CloudVampFixed
from vmpack.replay.facts import DrawFacts
from vmpack.replay.hyperv import HyperV
from vmpack.replay.oracle import Oracle
from vmpack.replay.policy import Policy
from vmpack.replay.static_policy import StaticPolicy

Factory = Callable[[DrawFacts], Policy]

SHIPPED: dict[str, Factory] = {
    **vmpack_policy.POLICIES,
    **{policy.name: policy for policy in (StaticPolicy, CloudVampFixed, HyperV, Oracle)},
}
RIVALS = "tests.benchmarks.rivals"


def policies() -> dict[str, Factory]:
    """All that there are, those that ship first; with stances, one for each, as NAME:STANCE."""
    found = dict(SHIPPED)
    for module in rivals(RIVALS):
        found.update(module.POLICIES)
    return found


def named(words: Sequence[str]) -> dict[str, Factory]:
    """Those that are asked for: `all`, a name, or a name with one stance; a name alone is all its stances.

    Raises UsageError for a name that is not there.
    """
    return chosen(words, policies())
