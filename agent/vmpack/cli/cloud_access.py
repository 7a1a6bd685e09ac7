"""How a command reaches the cloud: the options that say where, and the hosts and VMs that people name.

Called by every command that asks the cloud. None of them needs an agent or libvirt on this machine.
"""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from vmpack.errors import UsageError

if TYPE_CHECKING:
    from vmpack.clock import Clock
    from vmpack.clouds.cloud import Cloud
    from vmpack.config import Config
    from vmpack.model.cluster import AgentAnswer, CloudHost, CloudVm

T = TypeVar("T", "CloudHost", "CloudVm")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which cloud."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="vmpack's configuration file")


def configuration(args: argparse.Namespace) -> Config:
    """The configuration. Raises ConfigError: nothing is granted by settings that nobody meant."""
    from vmpack.config import cloud_files, load

    return load(cloud_files() if args.config is None else (args.config,))


def cloud(config: Config, clock: Clock) -> Cloud:
    """The configured cloud; it is asked with its first call.

    Raises UnavailableError without credentials, AccessError when others can read them, ConfigError.
    """
    from vmpack.clouds.opennebula import OpenNebula
    from vmpack.clouds.opennebula_access import login
    from vmpack.clouds.opennebula_client import OpenNebulaClient

    access = config.opennebula
    return OpenNebula(OpenNebulaClient(login(access), access.timeout_s), clock, access.shares_max)


def chosen_hosts(hosts: Sequence[CloudHost], words: Sequence[str]) -> tuple[CloudHost, ...]:
    """The hosts of these names or ids; without words those that are vmpack's or bear its marks.

    Raises UsageError for a word that names none, or several.
    """
    if not words:
        return tuple(host for host in hosts if host.managed or host.marked)
    return tuple(dict.fromkeys(host_named(hosts, word) for word in words))


def host_named(hosts: Sequence[CloudHost], word: str) -> CloudHost:
    """The host of this name or id. Raises UsageError."""
    names = [host.name for host in hosts]
    return _one([host for host in hosts if word in (host.name, host.id)], word, "host", names)


def vm_named(vms: Sequence[CloudVm], word: str) -> CloudVm:
    """The VM of this id, libvirt name or name. Raises UsageError for none, or a name that several have."""
    exact = [vm for vm in vms if word in (vm.id, vm.domain)]
    return _one(exact or [vm for vm in vms if vm.name == word], word, "VM", [vm.name for vm in vms])


def _one(found: list[T], word: str, kind: str, names: Iterable[str]) -> T:
    if len(found) == 1:
        return found[0]
    if found:
        ids = ", ".join(entry.id for entry in found)
        raise UsageError(f"there are {len(found)} {kind}s named {word!r}", f"say which, by id: {ids}")
    near = difflib.get_close_matches(word, list(names), n=1)
    hint = f"did you mean {near[0]}?" if near else f"`vmpack {kind.lower()}s` shows what is there"
    raise UsageError(f"the cloud has no {kind} {word!r}", hint)


def agents_of(hosts: Iterable[CloudHost]) -> dict[str, AgentAnswer]:
    """What the agents of these hosts say, by host name."""
    from vmpack.clouds.agents import reports

    return reports([host.name for host in hosts if host.state != "down"])
