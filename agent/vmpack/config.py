"""The configuration: TOML files to one frozen Config, and the texts that explain it.

Called by the agent (start and SIGHUP), `vmpack check-config` and the offline commands. Promises that a
file with any mistake changes nothing: `load` lists every mistake of every file, one line each.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vmpack.config_keys import Key, Value, home_directory, keys
from vmpack.errors import AccessError, ConfigError, UsageError
from vmpack.model.settings import (
    GpuSettings,
    GrantSettings,
    HostSettings,
    MemorySettings,
    OfferSettings,
    Settings,
    VcpuSettings,
)

HOST_DIRECTORY = Path("/etc/vmpack")
_EXPLAIN_HINT = "`vmpack check-config --explain` shows every key with unit, range and default"


@dataclass(frozen=True, slots=True)
class OpenNebulaAccess:
    """How oned is reached, and what VMs' owners may ask for there."""

    endpoint: str | None
    auth_file: Path | None
    timeout_s: float
    shares_max: int


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that the administrator can set."""

    settings: Settings
    grant: GrantSettings
    opennebula: OpenNebulaAccess
    gpu: GpuSettings
    vcpu: VcpuSettings
    connect_uri: str
    observe_only: bool
    release_on_stop: bool
    ask_guests: bool
    run_dir: Path
    state_dir: Path
    socket_group: str | None
    socket_group_may_change: bool
    textfile_dir: Path | None
    journal_cap_bytes: int
    journal_segment_bytes: int
    history_days: int
    files: tuple[Path, ...] = ()
    """Where it was read from, in order; later ones win."""

    @property
    def socket_path(self) -> Path:
        """The agent's socket."""
        return self.run_dir / "agent.sock"


class ConfigMistakes(ConfigError):
    """One or more mistakes in the configuration; `mistakes` has one line each."""

    def __init__(self, mistakes: Sequence[str]) -> None:
        super().__init__("\n".join(mistakes), _EXPLAIN_HINT)
        self.mistakes = tuple(mistakes)


def default_files() -> tuple[Path, ...]:
    """The files read when none is named: vmpack.toml, then conf.d/*.toml sorted by name; those that exist.

    In /etc/vmpack for root, in the user's configuration directory otherwise; none for a user without a home.
    Raises AccessError when this user may not look there.
    """
    base = _default_directory()
    return () if base is None else _files_in(base)


def cloud_files() -> tuple[Path, ...]:
    """As `default_files`, and the host's own for a user who has none: oneadmin is not root."""
    return default_files() or _files_in(HOST_DIRECTORY)


def _files_in(base: Path) -> tuple[Path, ...]:
    main, more = base / "vmpack.toml", base / "conf.d"
    try:
        added = sorted(path for path in more.iterdir() if path.match("*.toml")) if more.is_dir() else []
        return (*((main,) if main.exists() else ()), *added)
    except OSError as error:
        raise AccessError(
            f"cannot look for the configuration in {base}: {error.strerror}",
            "set HOME to this user's own directory, or name a file with --config",
        ) from error


def _default_directory() -> Path | None:
    if os.geteuid() == 0:
        return HOST_DIRECTORY
    configured = os.environ.get("XDG_CONFIG_HOME", "")
    if configured.startswith("/"):
        return Path(configured) / "vmpack"
    home = home_directory()
    return home / ".config" / "vmpack" if home else None


def load(files: Iterable[Path] | None = None) -> Config:
    """Read the configuration from these files (None: the default ones); later files win.

    Raises ConfigMistakes with one line per mistake: file, key, what was found, what was expected; and
    AccessError when the default ones cannot be looked for.
    """
    chosen = default_files() if files is None else tuple(files)
    values: dict[str, Value] = {}
    origins: dict[str, Path] = {}
    mistakes: list[str] = []
    for path in chosen:
        for name, found in _flat(path, mistakes):
            key = _BY_NAME.get(name)
            if key is None:
                mistakes.append(f"{path}: {name}: unknown key{_suggestion(name)}")
                continue
            try:
                values[name] = key.read(found)
                origins[name] = path
            except ValueError as error:
                mistakes.append(f"{path}: {name}: {error}")
    everything = _defaults() | values
    mistakes += _contradictions(everything, origins)
    if mistakes:
        raise ConfigMistakes(mistakes)
    return _build(everything, chosen)


def override(config: Config, changes: Mapping[str, Any]) -> Config:
    """The configuration with some keys set from the command line; None leaves a key as it is.

    Raises UsageError when a value is out of range or contradicts another.
    """
    values = _values_of(config)
    for name, found in changes.items():
        if found is None:
            continue
        try:
            values[name] = _BY_NAME[name].read(found)
        except ValueError as error:
            raise UsageError(f"{name}: {error}", _EXPLAIN_HINT) from error
    contradictions = _contradictions(values, {})
    if contradictions:
        raise UsageError("\n".join(contradictions), _EXPLAIN_HINT)
    return _build(values, config.files)


def needs_restart(old: Config, new: Config) -> tuple[str, ...]:
    """Names of keys that differ and that a running agent cannot take over."""
    before, after = _values_of(old), _values_of(new)
    return tuple(key.name for key in keys() if _is_fixed(key) and before[key.name] != after[key.name])


def _is_fixed(key: Key) -> bool:
    settable = ("agent.observe_only", "agent.release_on_stop")
    return key.table in ("agent", "gpu", "publish", "vcpu") and key.name not in settable


_BY_NAME = {key.name: key for key in keys()}
_SECTIONS = {"host": HostSettings, "memory": MemorySettings, "offer": OfferSettings}
_PARTS: dict[str, type] = {
    "grant": GrantSettings,
    "opennebula": OpenNebulaAccess,
    "gpu": GpuSettings,
    "vcpu": VcpuSettings,
}
_CONTRADICTIONS = (
    ("memory.scarcity_window", "memory.scarcity_intervals", 1),
    ("memory.silence_nominal_s", "memory.silence_s", 1),
    ("publish.journal_cap_bytes", "publish.journal_segment_bytes", 2),
)
"""The first key must be at least so many times the second."""


def _defaults() -> dict[str, Value]:
    return {key.name: key.default for key in keys()}


def _flat(path: Path, mistakes: list[str]) -> list[tuple[str, Any]]:
    """The file's keys with dotted names. A file that cannot be read is one mistake."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        mistakes.append(f"{path}: cannot be read: {error.strerror}")
        return []
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        mistakes.append(f"{path}: not valid TOML: {error}")
        return []
    flat: list[tuple[str, Any]] = []
    for table, entries in data.items():
        if isinstance(entries, dict):
            flat += [(f"{table}.{name}", found) for name, found in entries.items()]
        else:
            flat.append((table, entries))
    return flat


def _suggestion(name: str) -> str:
    by_field = {key.field: key.name for key in keys()}
    field = name.rpartition(".")[2]
    close = difflib.get_close_matches(name, _BY_NAME, 1, 0.75)
    close = close or [by_field[match] for match in difflib.get_close_matches(field, by_field, 1, 0.8)]
    return f"; did you mean {close[0]}?" if close else ""


def _contradictions(values: Mapping[str, Value], origins: Mapping[str, Path]) -> list[str]:
    lines = []
    for large, small, factor in _CONTRADICTIONS:
        larger, smaller = values[large], values[small]
        if isinstance(larger, int | float) and isinstance(smaller, int | float) and larger < factor * smaller:
            origin = origins.get(large) or origins.get(small)
            found, least = _BY_NAME[large].shown(larger), _BY_NAME[small].shown(smaller)
            times = f"{factor} times " if factor > 1 else ""
            place = f"{origin}: " if origin else ""
            lines.append(f"{place}{large}: found {found}, expected at least {times}{small} ({least})")
    return lines


def _build(values: Mapping[str, Value], files: tuple[Path, ...]) -> Config:
    sections: dict[str, dict[str, Any]] = {}
    for key in keys():
        table = key.table if key.table in (*_SECTIONS, *_PARTS) else ""
        sections.setdefault(table, {})[key.field] = values[key.name]
    settings = Settings(**{name: cls(**sections[name]) for name, cls in _SECTIONS.items()})
    parts: dict[str, Any] = {name: cls(**sections[name]) for name, cls in _PARTS.items()}
    return Config(settings=settings, files=files, **parts, **sections[""])


def _values_of(config: Config) -> dict[str, Value]:
    holders = {name: getattr(config.settings, name) for name in _SECTIONS}
    holders |= {name: getattr(config, name) for name in _PARTS}
    return {key.name: getattr(holders.get(key.table, config), key.field) for key in keys()}


def default_text() -> str:
    """The commented default file: every key with its sentence, unit, range and default."""
    lines = [
        "# vmpack's configuration. Every key is shown with its default; remove the # to change one.",
        "# `vmpack check-config` checks this file, `systemctl reload vmpack-agent` applies it.",
    ]
    table = ""
    for key in keys():
        if key.table != table:
            table = key.table
            lines += ["", f"[{table}]"]
        unset = " (not set by default)" if key.default is None else ""
        value = key.example if key.default is None else key.default
        lines += [f"# {key.meaning}", f"# {key.expected}{unset}", f"#{key.field} = {key.toml(value)}"]
    return "\n".join(lines) + "\n"


def explain_lines(config: Config | None = None) -> list[str]:
    """Every key in words; with a configuration, its value beside the default where they differ."""
    values = _values_of(config) if config else _defaults()
    lines = []
    for key in keys():
        shown = key.shown(values[key.name])
        if values[key.name] != key.default:
            shown += f" (default {key.shown(key.default)})"
        lines += [f"{key.name} = {shown}", f"    {key.meaning}", f"    {key.expected}"]
    return lines


def explain_records(config: Config | None = None) -> list[dict[str, Any]]:
    """The same for programs: one plain dictionary per key."""
    values = _values_of(config) if config else _defaults()
    return [
        {
            "name": key.name,
            "kind": key.kind,
            "value": _plain(values[key.name]),
            "default": _plain(key.default),
            "low": key.low,
            "high": key.high,
            "unit": key.unit,
            "meaning": key.meaning,
        }
        for key in keys()
    ]


def markdown_table() -> str:
    """The README's table of keys. Paths are those of root."""
    lines = ["| Key | Unit | Range | Default | Meaning |", "|---|---|---|---|---|"]
    of_root = {"agent.run_dir": "/run/vmpack", "agent.state_dir": "/var/lib/vmpack"}
    for key in keys():
        default = of_root.get(key.name) or key.shown(key.default)
        lines.append(f"| `{key.name}` | {key.kind} | {key.range} | {default} | {key.meaning} |")
    return "\n".join(lines) + "\n"


def _plain(value: Value) -> bool | int | float | str | None:
    return str(value) if isinstance(value, Path) else value
