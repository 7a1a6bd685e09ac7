"""A front-end for cloud commands: a double of oned, credentials, hosts' agents behind a stand-in for ssh."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.opennebula.oned import ADMIN, Oned, served
from tests.opennebula.oned_objects import OnedHost, OnedVm
from tests.opennebula.template import merge, parse
from vmpack.cli.main import main
from vmpack.units import GIB

Listed = Callable[..., list[dict[str, Any]]]
GrantRun = Callable[..., dict[str, Any]]

SSH = """#!/bin/sh
# A stand-in for ssh: the host's answer is a file; what else it was told is kept.
while [ "$1" != "--" ]; do shift; done
host=$2
shift 2
printf '%s %s\\n' "$host" "$*" >>"$SSH_HOSTS/told"
answer=$SSH_HOSTS/$host.json
if [ "$*" = "vmpack status --json" ] && [ -f "$answer" ]; then exec cat "$answer"; fi
if [ "$2" = "policy" ] && [ -f "$answer" ]; then exit 0; fi
echo "connect to host $host port 22: No route to host" >&2
exit 255
"""


def asks(vm: OnedVm, text: str) -> None:
    """Its owner writes this."""
    vm.user_template = merge(vm.user_template, parse(text))


class FrontEnd:
    """The machine that the commands run on."""

    def __init__(self, oned: Oned, folder: Path) -> None:
        self.oned = oned
        self._folder = folder

    def agent(
        self,
        name: str,
        offered: int,
        packed: int,
        vms: dict[str, int],
        policy: dict[str, Any] | None = None,
        **changes: Any,
    ) -> None:
        """This host's agent answers so; `vms` are nominals by libvirt name, all with this policy.

        All have lent the same part of what is packed.
        """
        lent = packed // max(1, len(vms))
        record = {
            "version": "0.1.0",
            "state": "active",
            "stale": False,
            "last_error": None,
            "host": {"capacity_bytes": 8 * GIB, "packed_bytes": packed, "offered_bytes": offered},
            "vms": [
                {
                    "uuid": f"uuid-of-{domain}",
                    "name": domain,
                    "nominal_bytes": nominal,
                    "balloon_bytes": max(0, nominal - lent),
                    "floor_bytes": nominal // 8,
                    "target_bytes": nominal // 2,
                    "verdict": "hold",
                    "policy": policy or {},
                }
                for domain, nominal in vms.items()
            ],
        }
        self.says(name, json.dumps(record | changes))

    def says(self, name: str, text: str) -> None:
        """Anything at all."""
        (self._folder / f"{name}.json").write_text(text)

    def silent(self, name: str) -> None:
        """This host can no longer be reached."""
        (self._folder / f"{name}.json").unlink()

    def told(self) -> list[str]:
        """What was said to hosts, but for questions: host and words."""
        kept = self._folder / "told"
        lines = kept.read_text().splitlines() if kept.exists() else []
        return [line for line in lines if not line.endswith("vmpack status --json")]


@pytest.fixture
def oned() -> Oned:
    """One oned without hosts."""
    return Oned()


@pytest.fixture
def front_end(oned: Oned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FrontEnd]:
    """A front-end whose user is an administrator of that oned."""
    home, hosts, programs = tmp_path / "home", tmp_path / "hosts", tmp_path / "bin"
    for folder in (home / ".one", hosts, programs):
        folder.mkdir(parents=True)
    auth = home / ".one" / "one_auth"
    auth.write_text(f"{ADMIN}\n")
    auth.chmod(0o600)
    (programs / "ssh").write_text(SSH)
    (programs / "ssh").chmod(0o755)
    for name in ("ONE_AUTH", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("SSH_HOSTS", str(hosts))
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    with served(oned) as endpoint:
        monkeypatch.setenv("ONE_XMLRPC", endpoint)
        yield FrontEnd(oned, hosts)


@pytest.fixture
def host(oned: Oned, front_end: FrontEnd) -> OnedHost:
    """A host of 8 GiB, full by its nominals, whose agent has packed 4 GiB and offers 3."""
    made = oned.add_host("node-a", 8192)
    first, second = oned.add_vm("web", 4096, made), oned.add_vm("db", 4096, made)
    domains = {f"one-{first.id}": 4 * GIB, f"one-{second.id}": 4 * GIB}
    front_end.agent("node-a", 3 * GIB, 4 * GIB, domains)
    return made


@pytest.fixture
def grant(capsys: pytest.CaptureFixture[str]) -> GrantRun:
    """Run the command and give the one host's record."""

    def run(*words: str, code: int = 0) -> dict[str, Any]:
        capsys.readouterr()
        assert main(["grant", "--json", *words]) == code
        (record,) = json.loads(capsys.readouterr().out)["hosts"]
        return dict(record)

    return run


@pytest.fixture
def vm(oned: Oned, host: OnedHost, front_end: FrontEnd) -> OnedVm:
    """A VM of 1 GiB that its agent knows."""
    made = oned.add_vm("web", 1024, host)
    front_end.agent("node-a", 0, 0, {f"one-{made.id}": GIB})
    return made


@pytest.fixture
def listed(capsys: pytest.CaptureFixture[str]) -> Listed:
    """Run the command and give the VMs' records."""

    def run(*words: str, code: int = 0) -> list[dict[str, Any]]:
        capsys.readouterr()
        assert main(["vms", "--json", *words]) == code
        return list(json.loads(capsys.readouterr().out)["vms"])

    return run
