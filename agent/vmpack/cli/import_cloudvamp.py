"""`vmpack import FILE...`: CloudVAMP's settings (cvem.cfg, one.cfg) as vmpack's configuration."""

from __future__ import annotations

import argparse
import configparser
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vmpack.cli.safe_text import shown
from vmpack.config_keys import Key, keys
from vmpack.errors import BadDataError, UsageError
from vmpack.units import KIB

EXIT_WARNED = 3
LARGEST_BYTES = 1024 * 1024

DESCRIPTION = """\
Read CloudVAMP's configuration and print what it means as vmpack's, to standard output. What has no
equivalent is said on standard error, with the reason. Nothing is changed, and no password is printed."""

EPILOG = """\
examples:
  vmpack import /etc/cvem/cvem.cfg /etc/cvem/one.cfg
  vmpack import /etc/cvem/cvem.cfg > cloudvamp.toml && vmpack check-config cloudvamp.toml
  sudo cp cloudvamp.toml /etc/vmpack/conf.d/10-cloudvamp.toml      then: systemctl reload vmpack-agent

CloudVAMP ran once, on the front-end; vmpack's agent runs on every host: the [opennebula] part is for
the front-end, the rest for the hosts. Later files win.

exit code: 0 ok, 1 no file of CloudVAMP's, 2 no such file, 3 something could not be taken over."""

Mapped = tuple[str, Any]
"""A key of vmpack's and the value for it."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What becomes of one option."""

    read: Callable[[str], Mapped] | None
    """Raises ValueError for a value that is none."""
    note: str = ""
    """What is different, or why there is no equivalent."""


def add_parser(subparsers: Any) -> None:
    """Add the command to the tree."""
    parser = subparsers.add_parser(
        "import", description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", metavar="FILE", nargs="+", type=Path, help="cvem.cfg, one.cfg")


def run(args: argparse.Namespace) -> int:
    """Print the TOML and the notes. Raises UsageError and BadDataError, one line each."""
    found = _read(args.files)
    by_name = {key.name: key for key in keys()}
    lines: dict[str, list[str]] = {}
    complaints = 0
    for (section, option), text in found.items():
        try:
            name, value = _taken(section, option, text)
            key = by_name[name]
            line = f"{key.field} = {key.toml(key.read(value))}"
        except _LeftOut as reason:
            _note(option, str(reason))
        except ValueError as error:
            complaints += 1
            _note(option, f"not taken over: {error}")
        else:
            _note_difference(section, option, key)
            lines.setdefault(key.table, []).append(f"# CloudVAMP: {_told(option, text)}\n{line}")
    for table, entries in lines.items():
        print(f"[{table}]\n" + "\n".join(entries) + "\n")
    return EXIT_WARNED if complaints else 0


class _LeftOut(Exception):
    """There is no equivalent; the text says why."""


def _read(files: list[Path]) -> dict[tuple[str, str], str]:
    # cpyutils.config, which CloudVAMP's family of programs uses, needs Python 2's ConfigParser module.
    parser = configparser.RawConfigParser(strict=False, inline_comment_prefixes=(";",))
    for file in files:
        try:
            with file.open("rb") as opened:
                text = opened.read(LARGEST_BYTES + 1)
            if len(text) > LARGEST_BYTES:
                raise BadDataError(f"{file} is larger than any configuration of CloudVAMP's")
            parser.read_string(text.decode("utf-8"), source=str(file))
        except OSError as error:
            raise UsageError(
                f"{file} cannot be read: {error.strerror}", "name cvem.cfg and one.cfg"
            ) from error
        except (configparser.Error, UnicodeDecodeError) as error:
            first = str(error).splitlines()[0]
            raise BadDataError(f"{file} is no configuration of CloudVAMP's: {first:.200}") from error
    found = {
        (section, option.upper()): value.strip()
        for section in RULES
        if parser.has_section(section)
        for option, value in parser.items(section)
    }
    if not found:
        names = ", ".join(str(file) for file in files)
        raise BadDataError(
            f"no settings of CloudVAMP's in {names}",
            "expected a section [cvem] or [one], as in cvem.cfg, one.cfg",
        )
    return _with_server(found)


def _with_server(found: dict[tuple[str, str], str]) -> dict[tuple[str, str], str]:
    """Server and port are one address for us."""
    server = found.pop(("one", "ONE_SERVER"), None)
    port = found.pop(("one", "ONE_PORT"), None)
    if server is not None:
        found["one", "ONE_SERVER"] = f"{server}:{port or 2633}"
    elif port is not None:
        _note("ONE_PORT", "not taken over: no ONE_SERVER is set that it could belong to")
    return found


def _taken(section: str, option: str, text: str) -> Mapped:
    rule = RULES[section].get(option)
    if rule is None:
        raise ValueError("CloudVAMP has no such setting")
    if rule.read is None:
        raise _LeftOut(rule.note)
    return rule.read(text)


def _note_difference(section: str, option: str, key: Key) -> None:
    note = RULES[section][option].note
    if note:
        _note(option, f"{key.name}: {note}")


def _note(option: str, text: str) -> None:
    print(f"{shown(option)[:80]}: {shown(text)}", file=sys.stderr)


def _told(option: str, text: str) -> str:
    return shown(f"{option} = {text}")[:200]


def _kib(name: str) -> Callable[[str], Mapped]:
    return lambda text: (name, _whole(text) * KIB)


def _seconds(name: str) -> Callable[[str], Mapped]:
    return lambda text: (name, _amount(text))


def _headroom(text: str) -> Mapped:
    free_pct = _amount(text)
    if not 0 <= free_pct < 100:
        raise ValueError(f"found {text!r:.40}, expected a percentage below 100")
    return "memory.headroom_ratio", round(free_pct / (100 - free_pct), 4)


def _dead_band(text: str) -> Mapped:
    return "memory.dead_band_ratio", _amount(text) / 100


def _flag(text: str) -> Mapped:
    known = configparser.RawConfigParser.BOOLEAN_STATES
    if text.lower() not in known:
        raise ValueError(f"found {text!r:.40}, expected True or False")
    return "agent.observe_only", known[text.lower()]


def _endpoint(text: str) -> Mapped:
    host, _, port = text.rpartition(":")
    plain = host and all(sign.isascii() and (sign.isalnum() or sign in "-._[]:") for sign in host)
    if not plain or not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError(f"found {text!r:.80}, expected the name of a server and a port")
    return "opennebula.endpoint", f"http://{host}:{port}/RPC2"


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise ValueError(f"found {text!r:.40}, expected a whole number")
    return int(text)


def _amount(text: str) -> float:
    try:
        amount = float(text)
    except ValueError:
        amount = -1.0
    if not 0 <= amount < 1e9:
        raise ValueError(f"found {text!r:.40}, expected a number")
    return amount


RULES: dict[str, dict[str, Rule]] = {
    "cvem": {
        "MEM_OVER": Rule(
            _headroom,
            "CloudVAMP's is a share of the VM's size, ours of what it uses, hence another number for the "
            "same room; a VM's own MEM_OVER goes on to count",
        ),
        "MEM_MARGIN": Rule(_dead_band, "CloudVAMP's is of the VM's present size, ours of its nominal memory"),
        "MEM_MIN": Rule(_kib("memory.floor_min_bytes")),
        "MEM_DIFF_TO_CHANGE": Rule(_kib("memory.dead_band_min_bytes")),
        "MIN_FREE_MEMORY": Rule(
            _kib("memory.fixed_headroom_min_bytes"),
            "room that a guest keeps even under scarcity; with less than that it grows at once, without "
            "CloudVAMP's count to three; a VM's own MIN_FREE_MEM goes on to count",
        ),
        "COOLDOWN": Rule(_seconds("memory.calm_s"), "only shrinking waits; a VM in need grows at once"),
        "DELAY": Rule(_seconds("memory.interval_s")),
        "HOST_MEM_MARGIN": Rule(_kib("host.reserve_min_bytes")),
        "ONLY_TEST": Rule(_flag),
        "SYS_MEM_OFFSET": Rule(None, "not needed: what a guest's kernel takes is measured for each VM"),
        "MIGRATION_COOLDOWN": Rule(None, "no equivalent: the agent asks for migrations, and starts none"),
        "MAX_THREADS": Rule(None, "not needed: one call reads all VMs of a host"),
        "USER_FILTER": Rule(
            None, "no equivalent: all VMs are packed but those opted out: VMPACK_OPT_OUT, `vmpack policy`"
        ),
        "CHANGE_MEMORY_CMD": Rule(None, "not needed: the agent on each host speaks to libvirt itself"),
        "MONITOR_CLASS": Rule(None, "not needed: ./install.sh opennebula installs OpenNebula's drivers"),
        "DATA_FILE": Rule(None, "not needed: the agent keeps what it remembers in agent.state_dir"),
    },
    "one": {
        "ONE_SERVER": Rule(_endpoint, "for the front-end's commands alone: agents need no cloud"),
        "ONE_ID": Rule(
            None,
            "not copied: put USER:PASSWORD into a file of mode 0600 and name it in opennebula.auth_file, or "
            "run as oneadmin, who has ~/.one/one_auth",
        ),
    },
}  # fmt: skip
