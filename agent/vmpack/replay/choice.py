"""Policies by name: which are asked for, and where rivals are found; for every `vmpack simulate`."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import TypeVar

from vmpack.errors import UsageError

ALL = "all"
T = TypeVar("T")


def rivals(package_name: str) -> list[ModuleType]:
    """The package's modules by name; none where Python does not find the package."""
    try:
        package = importlib.import_module(package_name)
    except ModuleNotFoundError as error:
        if error.name is None or not package_name.startswith(error.name):
            raise
        return []
    names = sorted(module.name for module in pkgutil.iter_modules(package.__path__))
    return [importlib.import_module(f"{package_name}.{name}") for name in names]


def chosen(words: Sequence[str], there: Mapping[str, T]) -> dict[str, T]:
    """Those of `there` that are asked for: `all`, a name, or a family: all names FAMILY:SETTING.

    Raises UsageError for a word that is none of these.
    """
    found: dict[str, T] = {}
    for word in words:
        fitting = [name for name in there if word in (ALL, name, family(name))]
        if not fitting:
            raise UsageError(f"there is no policy {word!r}", f"there are {', '.join(there)}")
        found.update((name, there[name]) for name in fitting)
    return found


def family(name: str) -> str:
    """The name without its setting."""
    return name.partition(":")[0]
