"""`vmpack gpus`: the host's GPUs, how busy they are, and which VM has them. Changes nothing."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vmpack.cli import agent_access
from vmpack.cli.safe_text import shown
from vmpack.errors import AgentBusyError, UnavailableError
from vmpack.model.codec import encode
from vmpack.model.gpu import Gpu, GpuProcess, MigInstance, idle_names, is_idle
from vmpack.units import format_bytes, format_ratio

if TYPE_CHECKING:
    from rich.table import Table

    from vmpack.config import Config
    from vmpack.model.host import HostSnapshot

EXIT_WARNINGS = 3

DESCRIPTION = """\
Show this host's NVIDIA GPUs: how busy each one and each MIG instance is, and who uses it. What runs
on a GPU that is passed through to a VM, only that VM knows; of it the owner is shown. Asks the running
agent; without one, looks once for itself."""

EPILOG = """\
examples:
  vmpack gpus                                       a table for people
  vmpack gpus --json | jq '.gpus[] | .uuid'         the same for programs
  vmpack gpus --json | jq -r '.idle[]'              what one more VM could be given

Which GPUs the agent looks at is set by gpu.devices: all, none, or a list of indexes, UUIDs and PCI
addresses.

--json: gpus [{index, uuid, name, pci_address, numa_node, cores, memory_total_bytes, memory_used_bytes,
memory_free_bytes, utilization_ratio, memory_utilization_ratio, encoder_ratio, decoder_ratio,
temperature_c, power_w, power_limit_w, ecc_corrected, ecc_uncorrected, processes [{pid,
memory_used_bytes, vm_uuid}], mig_enabled, mig_instances [...], vgpus [{uuid, vm_uuid, name, ...}],
is_passthrough, vm_uuids, fault}], idle [UUID or PCI address], why (why there is none, or null).
What a device does not tell is null.

exit code: 0 ok, 3 a GPU cannot be read, 69 neither an agent nor libvirt answers."""


def add_parser(subparsers: Any) -> None:
    """Add the command to the tree."""
    parser = subparsers.add_parser(
        "gpus", description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    agent_access.add_arguments(parser, whole_host=True, any_libvirt=True)


def run(args: argparse.Namespace) -> int:
    """Print the GPUs. Raises UnavailableError when there is neither an agent nor libvirt to ask."""
    snapshot = _newest(args)
    why = None if snapshot.gpus else _why_none(args)
    if args.json:
        print(json.dumps(record(snapshot.gpus, why), indent=2))
    elif snapshot.gpus:
        from vmpack.cli.screen import console

        console().print(table(snapshot.gpus, _names(snapshot)))
        for line in faults(snapshot.gpus):
            print(line)
    else:
        print(f"no GPU: {why}")
    return EXIT_WARNINGS if any(gpu.fault for gpu in snapshot.gpus) else 0


def record(gpus: Sequence[Gpu], why: str | None) -> dict[str, Any]:
    """The documented JSON form."""
    return {
        "gpus": [encode(gpu) for gpu in gpus],
        "idle": [name for gpu in gpus for name in idle_names(gpu)],
        "why": why,
    }


def table(gpus: Sequence[Gpu], names: Mapping[str, str]) -> Table:
    """One row per GPU and MIG instance; `names` has the VMs' names by uuid."""
    from rich import box
    from rich.table import Table

    found = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("GPU", "model", "where"):
        found.add_column(heading, overflow="fold")
    for heading in ("memory", "used", "busy", "temp", "power"):
        found.add_column(heading, justify="right", no_wrap=True)
    found.add_column("used by", overflow="fold")
    for gpu in gpus:
        found.add_row(
            "-" if gpu.index is None else str(gpu.index),
            shown(gpu.name or "-"),
            _where(gpu),
            _bytes(gpu.memory_total_bytes),
            _bytes(gpu.memory_used_bytes),
            "-" if gpu.utilization_ratio is None else format_ratio(gpu.utilization_ratio),
            "-" if gpu.temperature_c is None else f"{gpu.temperature_c} C",
            "-" if gpu.power_w is None else f"{gpu.power_w:.0f} W",
            shown(_users(gpu, names)),
        )
        for part in gpu.mig_instances:
            found.add_row(
                f"{'-' if gpu.index is None else gpu.index}:{part.index}",
                shown(part.name or "-"),
                "",
                _bytes(part.memory_total_bytes),
                _bytes(part.memory_used_bytes),
                "-",
                "",
                "",
                shown(_users(part, names)),
            )
    return found


def faults(gpus: Sequence[Gpu]) -> list[str]:
    """A line for each GPU that cannot be read."""
    return [f"{shown(_name(gpu))} cannot be read: {shown(gpu.fault)}" for gpu in gpus if gpu.fault]


def _name(gpu: Gpu) -> str:
    return gpu.uuid or gpu.pci_address or f"GPU {gpu.index}"


def _where(gpu: Gpu) -> str:
    node = "" if gpu.numa_node is None else f" node {gpu.numa_node}"
    return f"{shown(gpu.pci_address or '-')}{node}"


def _users(part: Gpu | MigInstance, names: Mapping[str, str]) -> str:
    if part.fault:
        return "cannot be read"
    users = [names.get(uuid, uuid) for uuid in part.vm_uuids]
    others = _others(part.processes)
    if others:
        users.append(f"{others} process{'' if others == 1 else 'es'} of the host")
    if users:
        return ", ".join(users)
    if isinstance(part, Gpu) and part.is_passthrough:
        return "nobody, set aside for a VM"
    return "nobody" if is_idle(part) else "not known"


def _others(processes: Sequence[GpuProcess] | None) -> int:
    return sum(process.vm_uuid is None for process in processes or ())


def _bytes(amount_bytes: int | None) -> str:
    return "-" if amount_bytes is None else format_bytes(amount_bytes)


def _names(snapshot: HostSnapshot) -> dict[str, str]:
    silent = {guest.uuid: guest.name for guest in snapshot.unreadable}
    return silent | {guest.uuid: guest.name for guest in snapshot.guests}


def _newest(args: argparse.Namespace) -> HostSnapshot:
    try:
        interval = agent_access.client(args).status().interval
    except AgentBusyError:
        raise
    except UnavailableError:
        return _look(agent_access.configuration(args))
    if interval is None:
        raise UnavailableError("no interval has gone through yet", "try again in a moment")
    return interval.snapshot


def _look(config: Config) -> HostSnapshot:
    from vmpack.clock import SystemClock
    from vmpack.hypervisor import Hypervisor
    from vmpack.model.gpu_selection import GpuSelection
    from vmpack.observe.gpu import GpuReader
    from vmpack.observe.source import HostSource

    hypervisor = Hypervisor(config.connect_uri)
    reader = GpuReader(GpuSelection.parse(config.gpu.devices))
    source = HostSource(
        hypervisor,
        SystemClock(),
        pretended_bytes=None,
        frozen=lambda: False,
        claims=lambda: (),
        gpus=reader.read_now,
    )
    try:
        return source.observe()
    finally:
        reader.close()
        hypervisor.close()


def _why_none(args: argparse.Namespace) -> str:
    """What this host itself says of it; the agent's configuration may be another one."""
    from vmpack.cli.gpu_checks import gpus

    return "; ".join(finding.text for finding in gpus(agent_access.configuration(args).gpu.devices))
