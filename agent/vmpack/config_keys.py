"""The one table of configuration keys: name, kind, range, default and one sentence each.

Read by vmpack.config, which parses files with it and writes the default file, the explanation and the
README's table from it. Adding a key is adding one line here and one field in model/settings.py or Config.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vmpack.model.gpu_selection import GpuSelection
from vmpack.model.settings import GpuSettings, GrantSettings, Settings, VcpuSettings
from vmpack.units import GIB, KIB, MIB, format_bytes, parse_bytes, parse_seconds

Kind = Literal["bytes", "seconds", "ratio", "points", "count", "days", "flag", "text", "path", "gpus", "cpus"]
_CPUS = re.compile(r"[0-9]{1,4}(-[0-9]{1,4})?", re.ASCII)

Value = bool | int | float | str | Path | None

_UNITS: dict[Kind, str] = {
    "bytes": 'bytes, a number or text such as "512MiB"',
    "seconds": 'seconds, a number or text such as "30s"',
    "ratio": "a ratio, 1 is the whole",
    "points": "points: hundredths of one pCPU",
    "count": "a whole number",
    "days": "a whole number of days",
    "flag": "true or false",
    "text": "text in quotes",
    "path": "an absolute path in quotes",
    "gpus": '"all", "none", or indexes, UUIDs and PCI addresses with commas between, in quotes',
    "cpus": 'numbers of pCPUs in quotes, such as "0-1,8"; "" for none',
}


@dataclass(frozen=True, slots=True)
class Key:
    """One thing that the administrator can set."""

    name: str
    """Dotted: table and key, as in the file."""
    kind: Kind
    default: Value
    """None: not set."""
    meaning: str
    low: float | None = None
    high: float | None = None
    example: Value = None
    """What the default file shows where there is no default."""
    choices: tuple[str, ...] = ()
    """The only texts that will do; empty: any."""

    @property
    def table(self) -> str:
        return self.name.partition(".")[0]

    @property
    def field(self) -> str:
        return self.name.partition(".")[2]

    @property
    def unit(self) -> str:
        """The unit in words, with how to write it."""
        return _UNITS[self.kind]

    @property
    def expected(self) -> str:
        """Unit and range, or the choices, in words."""
        if self.choices:
            return "one of " + ", ".join(f'"{choice}"' for choice in self.choices)
        return f"{self.unit}, from {self.range}" if self.range else self.unit

    @property
    def range(self) -> str:
        """Range alone; empty where every value of the kind will do."""
        return "" if self.low is None else f"{self.shown(self.low)} to {self.shown(self.high)}"

    def read(self, found: Any) -> Value:
        """Turn a value of a TOML file into the field's. Raises ValueError: what was found, what expected."""
        value = _READERS[self.kind](found)
        if value is None or (self.choices and value not in self.choices):
            raise ValueError(f"found {_found(found)}, expected {self.expected}")
        if self.low is not None and self.high is not None and not self.low <= float(value) <= self.high:
            raise ValueError(f"found {_found(found)}, out of range: expected {self.expected}")
        return value

    def shown(self, value: Value) -> str:
        """A value of this key for people: 80 MiB, 5 s, 0.1."""
        if value is None:
            return "not set"
        if self.kind == "bytes":
            return format_bytes(float(str(value)))
        if self.kind == "flag":
            return str(value).lower()
        text = f"{value:g}" if isinstance(value, float) else str(value)
        return f"{text} s" if self.kind == "seconds" else text

    def toml(self, value: Value) -> str:
        """A value of this key as it is written in the file."""
        if self.kind == "bytes" and isinstance(value, int):
            return _toml_bytes(value)
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, int | float):
            return f"{value:g}" if isinstance(value, float) else str(value)
        return '"' + str(value or "").replace("\\", "\\\\").replace('"', '\\"') + '"'


def _toml_bytes(amount_bytes: int) -> str:
    for factor, unit in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if amount_bytes and amount_bytes % factor == 0:
            return f'"{amount_bytes // factor}{unit}"'
    return str(amount_bytes)


def _found(value: Any) -> str:
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _plain_number(found: Any) -> float | None:
    return found if type(found) in (int, float) and found == found and abs(found) < 1e18 else None


def _with_unit(parse: Callable[[str], float]) -> Callable[[Any], float | None]:
    def read(found: Any) -> float | None:
        if not isinstance(found, str):
            return _plain_number(found)
        try:
            return parse(found)
        except ValueError:
            return None

    return read


def _read_bytes(found: Any) -> int | None:
    amount = _with_unit(parse_bytes)(found)
    return None if amount is None or amount != int(amount) else int(amount)


def _read_float(found: Any) -> float | None:
    number = _plain_number(found)
    return None if number is None else float(number)


def _read_seconds(found: Any) -> float | None:
    return _read_float(_with_unit(parse_seconds)(found))


def _read_path(found: Any) -> Path | None:
    return Path(found) if isinstance(found, str) and found.startswith("/") and "\0" not in found else None


def _read_gpus(found: Any) -> str | None:
    try:
        GpuSelection.parse(found if isinstance(found, str) else "")
    except ValueError:
        return None
    return str(found)


def _read_cpus(found: Any) -> str | None:
    if not isinstance(found, str) or len(found) > 4096:
        return None
    parts = found.split(",") if found else []
    return found if all(_CPUS.fullmatch(part) for part in parts) else None


_READERS: dict[Kind, Callable[[Any], Any]] = {
    "bytes": _read_bytes,
    "seconds": _read_seconds,
    "ratio": _read_float,
    "points": _read_float,
    "count": lambda found: found if type(found) is int else None,
    "days": lambda found: found if type(found) is int else None,
    "flag": lambda found: found if type(found) is bool else None,
    "text": lambda found: found if isinstance(found, str) and found.isprintable() and found else None,
    "path": _read_path,
    "gpus": _read_gpus,
    "cpus": _read_cpus,
}


def default_run_dir() -> Path:
    """Where socket and probe texts are: /run/vmpack for root, the user's runtime directory otherwise."""
    if os.geteuid() == 0:
        return Path("/run/vmpack")
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    return Path(runtime) / "vmpack" if runtime.startswith("/") else Path(f"/tmp/vmpack-{os.geteuid()}")


LOCKS_FOLDER = "locks"
"""Below the default run directory, which all may read: here others may only ask whether a file is there."""


def default_state_dir() -> Path:
    """Where journal and state are: /var/lib/vmpack for root, the user's state directory otherwise.

    In the run directory for a user without a home.
    """
    if os.geteuid() == 0:
        return Path("/var/lib/vmpack")
    state = os.environ.get("XDG_STATE_HOME", "")
    if state.startswith("/"):
        return Path(state) / "vmpack"
    home = home_directory()
    return home / ".local" / "state" / "vmpack" if home else default_run_dir() / "state"


def home_directory() -> Path | None:
    """This user's home; None when neither HOME nor the user database names one."""
    try:
        return Path.home()
    except RuntimeError:
        return None


TIB = 1024 * GIB
DAY_S = 86400.0


def keys() -> tuple[Key, ...]:
    """Every key, in the order of the default file. Paths depend on who asks."""
    settings = Settings()
    host, memory, offer = settings.host, settings.memory, settings.offer
    grant, vcpu = GrantSettings(), VcpuSettings()
    return (
        Key("agent.connect_uri", "text", "qemu:///system",
            "The libvirt that the agent works on."),
        Key("agent.observe_only", "flag", False,
            "Change nothing: decide, publish and say what would have been done."),
        Key("agent.release_on_stop", "flag", True,
            "Give all memory back when the agent stops."),
        Key("agent.ask_guests", "flag", True,
            "Ask the guest agents of VMs for OOM kills (read from the guest's /proc/vmstat)."),
        Key("agent.run_dir", "path", default_run_dir(),
            "Directory of the socket and of the probe texts."),
        Key("agent.state_dir", "path", default_state_dir(),
            "Directory of the journal, the history and what the agent remembers."),
        Key("agent.socket_group", "text", None,
            "Members of this Unix group may ask the agent for status, explanations and metrics.",
            example="vmpack"),
        Key("agent.socket_group_may_change", "flag", False,
            "Members of agent.socket_group may also change things: policies, holds, balloons, freeze."),
        Key("host.memory_bytes", "bytes", host.memory_bytes,
            "Pretend that the host has only this much memory; not set: all of it.", 64 * MIB, 64 * TIB,
            example=64 * GIB),
        Key("host.reserve_ratio", "ratio", host.reserve_ratio,
            "Share of the host's memory that is never given to VMs.", 0, 0.9),
        Key("host.reserve_min_bytes", "bytes", host.reserve_min_bytes,
            "The reserve is at least this.", 0, TIB),
        Key("host.vm_overhead_bytes", "bytes", host.vm_overhead_bytes,
            "What a VM's process uses beside the guest's memory, where it cannot be measured.", 0, 16 * GIB),
        Key("memory.interval_s", "seconds", memory.interval_s,
            "Time from one look at the host to the next.", 0.5, 60),
        Key("memory.glance_s", "seconds", memory.glance_s,
            "Time between glances at the VMs within an interval: a sudden need is served at once, not at the "
            "next interval. 0: no glances.", 0, 60),
        Key("memory.stance", "text", memory.stance,
            "How bold to pack: safe keeps room for rises never seen, balanced for those that come more often "
            "than twice a day, dense for those that come often.", choices=("safe", "balanced", "dense")),
        Key("memory.floor_ratio", "ratio", memory.floor_ratio,
            "A VM is never ballooned below this share of its nominal memory.", 0.01, 1),
        Key("memory.floor_min_bytes", "bytes", memory.floor_min_bytes,
            "A VM is never ballooned below this.", 16 * MIB, TIB),
        Key("memory.fixed_headroom_ratio", "ratio", memory.fixed_headroom_ratio,
            "Room above use that a guest keeps even under scarcity, as a share of its nominal memory.", 0, 1),
        Key("memory.fixed_headroom_min_bytes", "bytes", memory.fixed_headroom_min_bytes,
            "That room is at least this.", MIB, 64 * GIB),
        Key("memory.headroom_ratio", "ratio", memory.headroom_ratio,
            "Elastic room above use, as a share of what is used; gives way under scarcity. Not set: by the "
            "stance. What a VM was seen to rise by comes on top.", 0, 5, example=0.2),
        Key("memory.headroom_min_bytes", "bytes", memory.headroom_min_bytes,
            "The elastic room is at least this. Not set: by the stance.", 0, 64 * GIB, example=64 * MIB),
        Key("memory.shares", "count", memory.shares,
            "Weight of a VM under scarcity, where its own policy says nothing.", 1, 100000),
        Key("memory.dead_band_ratio", "ratio", memory.dead_band_ratio,
            "Changes smaller than this share of nominal memory are noise.", 0, 0.5),
        Key("memory.dead_band_min_bytes", "bytes", memory.dead_band_min_bytes,
            "Changes smaller than this are noise.", MIB, 64 * GIB),
        Key("memory.shrink_step_ratio", "ratio", memory.shrink_step_ratio,
            "A VM loses at most this share of its nominal memory in one interval.", 0.01, 1),
        Key("memory.calm_s", "seconds", memory.calm_s,
            "A VM is shrunk only after it has not needed to grow for this long.", 0, DAY_S),
        Key("memory.silence_s", "seconds", memory.silence_s,
            "A shrunk VM whose statistics are older than this gets its last safe size back.", 2, 3600),
        Key("memory.silence_nominal_s", "seconds", memory.silence_nominal_s,
            "A shrunk VM that is silent for this long gets its nominal memory back.", 2, DAY_S),
        Key("memory.learned_floor_s", "seconds", memory.learned_floor_s,
            "How long a size is kept as floor at which a balloon stopped short.", 0, 7 * DAY_S),
        Key("memory.kill_floor_s", "seconds", memory.kill_floor_s,
            "How long a VM keeps its nominal memory after its guest killed a process for want of memory "
            "while packed; each further time doubles it.", 0, 7 * DAY_S),
        Key("memory.scarcity_intervals", "count", memory.scarcity_intervals,
            "Ask for a migration when this many of memory.scarcity_window intervals were scarce.", 1, 100),
        Key("memory.scarcity_window", "count", memory.scarcity_window,
            "How many intervals are looked back at for scarcity.", 1, 100),
        Key("offer.reaction_s", "seconds", offer.reaction_s,
            "How long the cloud takes to act when an offer is withdrawn: about what a migration takes.",
            1, 3600),
        Key("offer.bound_ratio", "ratio", offer.bound_ratio,
            "The offer is so large that the chance of a shortage within offer.reaction_s stays under this.",
            0.0001, 0.5),
        Key("offer.growth_reserve_ratio", "ratio", offer.growth_reserve_ratio,
            "Share of VMs' nominal memory that is kept out of the offer, at least, while nothing is known of "
            "how far their use rises; fades within the first day.", 0, 1),
        Key("vcpu.mode", "text", vcpu.mode,
            "How vCPUs are pinned: group keeps each VM on the pCPUs of one cache or NUMA node (nothing to do "
            "where there is one), balance gives single vCPUs a pCPU of their own where loads are uneven, off "
            "pins nothing.", choices=("group", "balance", "off")),
        Key("vcpu.interval_s", "seconds", vcpu.interval_s,
            "Time from one look at the vCPUs to the next.", 1, 3600),
        Key("vcpu.target_points", "points", vcpu.target_points,
            "Loads of the pCPUs are even enough when their standard deviation is at most this.", 0.5, 100),
        Key("vcpu.reserved_cpus", "cpus", vcpu.reserved_cpus,
            "pCPUs that no VM is pinned to."),
        Key("gpu.devices", "gpus", GpuSettings().devices,
            "Which NVIDIA GPUs are looked at. A GPU that is looked at is held open."),
        Key("grant.via", "text", grant.via,
            "How OpenNebula's scheduler is given memory: by the host's RESERVED_MEM, which the cloud's "
            "commands set, or by the monitoring probe, which raises TOTALMEMORY: `vmpack grant` then takes "
            "back what it had granted.",
            choices=("reserved", "probe")),
        Key("grant.factor", "ratio", grant.factor,
            "At most this share of the packed memory is given to the scheduler, and never more than is "
            "offered.", 0, 1),
        Key("grant.step_bytes", "bytes", grant.step_bytes,
            "Grants are whole multiples of this: small changes of the offer are not told to the cloud.",
            MIB, TIB),
        Key("grant.calm_s", "seconds", grant.calm_s,
            "A grant is raised only when it has not changed for this long; it is lowered at once.", 0, DAY_S),
        Key("opennebula.endpoint", "text", None,
            "Where oned answers; not set: ONE_XMLRPC, ~/.one/one_endpoint, or this machine's port 2633.",
            example="http://front-end:2633/RPC2"),
        Key("opennebula.auth_file", "path", None,
            "File with USER:PASSWORD or USER:TOKEN for oned; not set: ONE_AUTH or ~/.one/one_auth.",
            example=Path("/var/lib/one/.one/one_auth")),
        Key("opennebula.timeout_s", "seconds", 30.0,
            "A call that oned has not answered within this has failed.", 1, 600),
        Key("opennebula.shares_max", "count", 1000,
            "The largest VMPACK_SHARES that a VM's owner may set.", 1, 100000),
        Key("publish.textfile_dir", "path", None,
            "Directory of node_exporter's textfile collector; not set: metrics on the socket only.",
            example=Path("/var/lib/prometheus/node-exporter")),
        Key("publish.journal_cap_bytes", "bytes", 256 * MIB,
            "The journal never grows beyond this; the oldest segments go first.", MIB, TIB),
        Key("publish.journal_segment_bytes", "bytes", 16 * MIB,
            "Size at which a journal segment is closed and the next one opened.", 64 * KIB, GIB),
        Key("publish.history_days", "days", 90,
            "How long the history of five-minute slots is kept.", 1, 3650),
    )  # fmt: skip
