"""A machine as install.sh sees it, for its tests: programs on a PATH, an os-release, a checkout."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COREUTILS = (
    "cat chmod cksum cp cut dirname env find flock grep head ln ls mkdir mktemp mv readlink rm rmdir sed sh "
    "sort tail tee touch tr true uname wc"
)  # fmt: skip
DEBIAN = 'ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n'
APT_GET = "exit 0"
ALL_THERE = "echo installed"
NONE_THERE = "exit 1"


@dataclass
class Machine:
    """A machine as the script sees it: a checkout, a PATH of chosen programs, an os-release, a home."""

    base: Path
    checkout: Path
    environment: dict[str, str] = field(default_factory=dict)

    def has(self, program: str, body: str) -> None:
        """Put a program on its PATH; every call is written down."""
        path = self.base / "bin" / program
        # It may be a link to this machine's own program, which must not be written to.
        path.unlink(missing_ok=True)
        path.write_text(f'#!/bin/sh\necho "{program} $*" >>"{self.base}/calls"\n{body}\n')
        path.chmod(0o755)

    def is_running(self, os_release: str) -> None:
        """Let it be another distribution."""
        (self.base / "os-release").write_text(os_release)

    def install(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run ./install.sh."""
        return subprocess.run(
            ["/bin/sh", str(self.checkout / "install.sh"), *arguments],
            cwd=self.base,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def calls(self, program: str) -> list[str]:
        """How the program was called since the start."""
        file = self.base / "calls"
        lines = file.read_text().splitlines() if file.exists() else []
        return [line for line in lines if line.split()[0] == program]

    def files(self) -> set[Path]:
        """Everything there is, but for the notes about calls."""
        return {path for path in self.base.rglob("*") if path.name != "calls"}


def debian_machine(tmp_path: Path) -> Machine:
    """An ordinary user on Debian 12 with all packages, in a checkout whose path has a space."""
    checkout = tmp_path / "a checkout"
    checkout.mkdir()
    shutil.copytree(ROOT / "agent/install", checkout / "agent/install")
    shutil.copytree(ROOT / "agent/vmpack/data/systemd", checkout / "agent/vmpack/data/systemd")
    for name in ("install.sh", "setup.cfg", "pyproject.toml", "agent/vmpack/__init__.py"):
        shutil.copy(ROOT / name, checkout / name)
    (tmp_path / "bin").mkdir()
    for name in COREUTILS.split():
        (tmp_path / "bin" / name).symlink_to(str(shutil.which(name)))
    environment = {
        "PATH": str(tmp_path / "bin"),
        "HOME": str(tmp_path / "home"),
        "TMPDIR": str(tmp_path),
        "VMPACK_OS_RELEASE": str(tmp_path / "os-release"),
    }
    machine = Machine(tmp_path, checkout, environment)
    machine.is_running(DEBIAN)
    machine.has("id", "echo 1000")
    machine.has("dpkg-query", ALL_THERE)
    machine.has("apt-get", APT_GET)
    return machine


def fake_environment(machine: Machine, body: str = "exit 0") -> None:
    """A .venv whose Python only writes down how it was called."""
    (machine.checkout / ".venv/bin").mkdir(parents=True)
    machine.has("venv-python", body)
    (machine.checkout / ".venv/bin/python").symlink_to(machine.base / "bin/venv-python")


def pip_calls(machine: Machine) -> list[str]:
    """How pip was called in the fake .venv."""
    return [call for call in machine.calls("venv-python") if " -m pip install " in call]


def installed_release(machine: Machine, prefix: str, body: str = "exit 0", command: str = "agent") -> Path:
    """The release that `COMMAND --prefix` would make, made with a fake vmpack: nothing is downloaded."""
    said = machine.install(*command.split(), "--prefix", prefix, "--dry-run").stdout
    match = re.search(r"installing the program in (\S+)", said)
    assert match, said
    release = Path(match.group(1))
    (release / "bin").mkdir(parents=True)
    (release / ".complete").touch()
    program = release / "bin/vmpack"
    program.write_text(f'#!/bin/sh\necho "vmpack $*" >>"{machine.base}/calls"\n{body}\n')
    program.chmod(0o755)
    return release
