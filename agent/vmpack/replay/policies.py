"""Which memory policies there are, by name: those that ship, and rivals where the tests are at hand.

Each module of the package tests.benchmarks.rivals (where Python finds it, as from the root of the repository)
has POLICIES: names, and what makes a policy for a draw.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Sequence

from vmpack.errors import UsageError
from vmpack.replay import vmpack_policy
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
ALL = "all"


def policies() -> dict[str, Factory]:
    """All that there are, those that ship first; with stances, one for each, as NAME:STANCE."""
    found = dict(SHIPPED)
    for module in _rivals():
        found.update(importlib.import_module(module).POLICIES)
    return found


def _rivals() -> list[str]:
    try:
        package = importlib.import_module(RIVALS)
    except ModuleNotFoundError as error:
        if error.name is None or not RIVALS.startswith(error.name):
            raise
        return []
    return [f"{RIVALS}.{module.name}" for module in pkgutil.iter_modules(package.__path__)]


def named(words: Sequence[str]) -> dict[str, Factory]:
    """Those that are asked for: `all`, a name, or a name with one stance; a name alone is all its stances.

    Raises UsageError for a name that is not there.
    """
    there = policies()
    chosen: dict[str, Factory] = {}
    for word in words:
        fitting = [name for name in there if word in (ALL, name, name.partition(":")[0])]
        if not fitting:
            raise UsageError(f"there is no policy {word!r}", f"there are {', '.join(there)}")
        chosen.update((name, there[name]) for name in fitting)
    return chosen
