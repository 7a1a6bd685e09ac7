"""Which policies of offers there are, by name: those that ship, and rivals where the tests are at hand.

Each module of the package tests.benchmarks.grant_rivals has POLICIES (as their authors set them) and SWEEP
(with other margins): names, and what makes a policy for a draw. A name is FAMILY or FAMILY:SETTING.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from functools import partial
from types import ModuleType

from vmpack.errors import UsageError
from vmpack.replay import fixed_grant
from vmpack.replay.grant_oracle import GrantOracle
from vmpack.replay.grant_policy import GrantFactory
from vmpack.replay.vmpack_grant import VmpackGrant

RIVALS = "tests.benchmarks.grant_rivals"
ALL = "all"
OURS = "vmpack"
ORACLE = "oracle"


def grant_policies(bounds: Sequence[float], sweep: bool) -> dict[str, GrantFactory]:
    """All that there are; vmpack's once a bound, as vmpack:BOUND. With `sweep` rivals' other settings."""
    found: dict[str, GrantFactory] = {
        f"{OURS}:{bound:g}": partial(VmpackGrant, bound_ratio=bound) for bound in bounds
    }
    found[ORACLE] = GrantOracle
    for module in (fixed_grant, *_rivals()):
        found.update(module.POLICIES)
        if sweep:
            found.update(module.SWEEP)
    return found


def _rivals() -> list[ModuleType]:
    try:
        package = importlib.import_module(RIVALS)
    except ModuleNotFoundError as error:
        if error.name is None or not RIVALS.startswith(error.name):
            raise
        return []
    names = sorted(module.name for module in pkgutil.iter_modules(package.__path__))
    return [importlib.import_module(f"{RIVALS}.{name}") for name in names]


def named_grants(words: Sequence[str], bounds: Sequence[float], sweep: bool) -> dict[str, GrantFactory]:
    """Those that are asked for: `all`, a family, or one of its settings. Raises UsageError for none."""
    there = grant_policies(bounds, sweep)
    chosen: dict[str, GrantFactory] = {}
    for word in words:
        fitting = [name for name in there if word in (ALL, name, family(name))]
        if not fitting:
            raise UsageError(f"there is no policy {word!r}", f"there are {', '.join(there)}")
        chosen.update((name, there[name]) for name in fitting)
    return chosen


def family(name: str) -> str:
    """The name without its setting."""
    return name.partition(":")[0]
