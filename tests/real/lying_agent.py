"""`vmpack agent` with the statistics of some VMs altered on their way from libvirt.

Orders: VM uuid -> key of libvirt's bulk statistics -> value; null takes the key away, {"add": N} adds.
"""

from __future__ import annotations

import sys
from typing import Any

import libvirt

from tests.real.patched_agent import orders
from vmpack.cli.main import main

_real_bulk = libvirt.virConnect.getAllDomainStats
_real_some = libvirt.virConnect.domainListGetStats
_real_memory = libvirt.virDomain.memoryStats


def altered(stats: dict[str, Any], lies: dict[str, Any]) -> dict[str, Any]:
    """The same statistics with the lies told."""
    told = dict(stats)
    for key, lie in lies.items():
        if lie is None:
            told.pop(key, None)
        elif isinstance(lie, dict):
            told[key] = told.get(key, 0) + lie["add"]
        else:
            told[key] = lie
    return told


def all_altered(found: list[tuple[Any, dict[str, Any]]]) -> list[tuple[Any, dict[str, Any]]]:
    """Every VM's statistics, true or not."""
    lies = orders()
    return [(domain, altered(told, lies.get(domain.UUIDString(), {}))) for domain, told in found]


def bulk(connection: Any, stats: int = 0, flags: int = 0) -> list[tuple[Any, dict[str, Any]]]:
    """In the place of virConnect.getAllDomainStats."""
    return all_altered(_real_bulk(connection, stats, flags))


def some(
    connection: Any, domains: list[Any], stats: int = 0, flags: int = 0
) -> list[tuple[Any, dict[str, Any]]]:
    """In the place of virConnect.domainListGetStats."""
    return all_altered(_real_some(connection, domains, stats, flags))


def memory(domain: Any) -> dict[str, Any]:
    """One VM's balloon, with the same lie about its size."""
    told = _real_memory(domain)
    lies = orders().get(domain.UUIDString(), {})
    return altered(told, {"actual": lies["balloon.current"]} if "balloon.current" in lies else {})


libvirt.virConnect.getAllDomainStats = bulk
libvirt.virConnect.domainListGetStats = some
libvirt.virDomain.memoryStats = memory

if __name__ == "__main__":
    sys.exit(main())
