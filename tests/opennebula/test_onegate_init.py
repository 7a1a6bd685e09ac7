"""The reporter's installer, run the way OpenNebula's context packages run it, below a folder."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.opennebula.onegate import OneGate, Vm
from tests.opennebula.reporter import INIT, PUBLISHER, SHELLS, shell_command
from tests.waiting import eventually

PROGRAM = "usr/local/sbin/vmpack-onegate-publisher"
NOWHERE = "http://127.0.0.1:1"
TOKEN = "dG9rZW4+/w=="


class Guest:
    """A guest's root folder, its context disk, and what its service managers were told."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "root"
        self.mount = folder / "mount.abcdef"
        self.calls_file = folder / "calls"
        self._bin = folder / "bin"
        for made in (self.root / "run", self.mount, self._bin):
            made.mkdir(parents=True)
        (self.root / "proc").symlink_to("/proc")
        shutil.copy(INIT, self.mount)
        shutil.copy(PUBLISHER, self.mount)

    def has(self, *programs: str) -> None:
        """Put programs there that only note how they were called."""
        for name in programs:
            path = self._bin / name
            path.write_text(f'#!/bin/sh\necho {name} "$@" >> "{self.calls_file}"\n')
            path.chmod(0o755)

    def set_context(self, endpoint: str = NOWHERE, token: str = TOKEN, interval: int = 60) -> None:
        """Write one_env as the context package does."""
        place = self.root / "var/run/one-context"
        place.mkdir(parents=True, exist_ok=True)
        (place / "one_env").write_text(
            f'export TOKENTXT="{token}"\nexport VMID="7"\nexport ONEGATE_ENDPOINT="{endpoint}"\n'
            f'export VMPACK_REPORT_INTERVAL="{interval}"\n'
        )

    def init(self, *arguments: str, shell: str = "dash") -> subprocess.CompletedProcess[str]:
        """Run a copy of the installer in the folder of the context, as the context package does."""
        copies = self.root.parent / "one-context.tmp"
        copies.mkdir()
        copy = shutil.copy(INIT, copies)
        environment = {
            "PATH": f"{self._bin}:{os.environ['PATH']}",
            "MOUNT_DIR": str(self.mount),
            "OWNERS_SECRET": "xyzzy",
        }
        try:
            return subprocess.run(
                [*shell_command(shell), copy, *arguments, "--root", str(self.root)],
                cwd=self.mount,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
        finally:
            shutil.rmtree(copies)

    def calls(self) -> list[str]:
        """What service managers were told since last asked."""
        lines = self.calls_file.read_text().splitlines() if self.calls_file.exists() else []
        self.calls_file.unlink(missing_ok=True)
        return lines

    def pids(self) -> list[int]:
        """Processes of reporters in this guest."""
        found = []
        for process in Path("/proc").iterdir():
            if process.name.isdigit():
                try:
                    command = (process / "cmdline").read_bytes()
                except OSError:
                    continue  # it ended meanwhile
                if f"{self.root}/usr/local/sbin/vmpack-onegate".encode() in command:
                    found.append(int(process.name))
        return found

    def pid(self) -> int:
        """The reporter, at a moment when it has no subshell."""

        def alone() -> list[int]:
            found = self.pids()
            return found if len(found) == 1 else []

        return eventually("one reporter runs", alone)[0]

    def files(self) -> set[str]:
        """All files and folders of the guest, but for its context."""
        known = {"proc", "run", "var", "var/run", "var/run/one-context", "var/run/one-context/one_env"}
        return {str(path.relative_to(self.root)) for path in self.root.rglob("*")} - known


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Guest]:
    """A guest without a service manager; its reporters end with the test."""
    made = Guest(tmp_path)
    yield made
    for pid in made.pids():
        os.kill(pid, signal.SIGKILL)


class TestPlain:
    """Where there is neither systemd nor OpenRC."""

    @pytest.mark.parametrize("shell", SHELLS)
    def test_it_installs_starts_and_leaves_without_a_trace(self, guest: Guest, shell: str) -> None:
        """The reporter would not start in small guests, or could not be taken out again."""
        with OneGate(Vm(7, TOKEN)) as gate:
            guest.set_context(gate.endpoint)
            result = guest.init(shell=shell)
            assert result.returncode == 0, result.stderr
            shutil.rmtree(guest.mount)  # as the context package does
            guest.mount.mkdir()
            request = eventually("the first report", lambda: gate.asked("PUT"))[0]
            assert request.status == 200
            guest.pid()
            result = guest.init("uninstall", shell=shell)
            assert result.returncode == 0, result.stderr
            assert guest.pids() == []
            assert guest.files() <= {"usr", "usr/local", "usr/local/sbin"}

    def test_it_may_run_again_with_a_new_context(self, guest: Guest) -> None:
        """After a change of the context there would be two reporters, or one with the old address."""
        with OneGate(Vm(7, TOKEN)) as old, OneGate(Vm(7, "bmV3")) as new:
            guest.set_context(old.endpoint)
            guest.init()
            eventually("a report", lambda: old.asked("PUT"))
            first = guest.pid()
            guest.set_context(new.endpoint, "bmV3", interval=5)
            assert guest.init().returncode == 0
            assert eventually("a report", lambda: new.asked("PUT"))[0].status == 200
            assert guest.pid() != first
            assert "at least every 5 s" in guest.init("status").stdout

    def test_nothing_of_the_owners_environment_gets_in(self, guest: Guest) -> None:
        """Context variables with passwords would stand in a process for as long as the VM runs."""
        guest.set_context()
        guest.init()
        eventually("it runs", (guest.root / "run/vmpack/reporter.status").exists)
        pid = guest.pid()
        process = Path(f"/proc/{pid}")
        assert b"xyzzy" not in (process / "environ").read_bytes()
        assert (process / "cwd").resolve() == Path("/")
        nowhere = [Path("/dev/null")] * 3  # but for the moments in which it reads a file
        eventually("no output", lambda: [(process / f"fd/{fd}").resolve() for fd in range(3)] == nowhere)

    def test_a_dead_one_is_started_again(self, guest: Guest) -> None:
        """After a crash the next boot would find a lock and start none."""
        guest.set_context()
        guest.init()
        pid = guest.pid()
        eventually("it has its lock", (guest.root / "run/vmpack/reporter.status").exists)
        os.kill(pid, signal.SIGKILL)
        eventually("it has ended", lambda: guest.pids() == [])
        assert guest.init("status").returncode == 3
        assert guest.init().returncode == 0
        eventually("it runs", lambda: guest.init("status").returncode == 0)
        assert guest.pid() != pid

    def test_context_of_very_old_packages(self, guest: Guest) -> None:
        """VMs of old images, whose token is only there while they boot, could not report."""
        with OneGate(Vm(7, TOKEN)) as gate:
            (guest.mount / "context.sh").write_text(
                f"DISK_ID='1'\nONEGATE_ENDPOINT='{gate.endpoint}'\nVMID='7'\nVMPACK_REPORT_INTERVAL='5'\n"
            )
            (guest.mount / "token.txt").write_text(TOKEN)
            assert guest.init().returncode == 0
            shutil.rmtree(guest.mount)
            guest.mount.mkdir()
            eventually("two reports", lambda: len(gate.asked("PUT")) >= 2)
            assert {request.status for request in gate.requests} == {200}
            kept = guest.root / "run/vmpack/reporter.env"
            assert kept.stat().st_mode & 0o777 == 0o400
            guest.init("uninstall")
            assert guest.files() <= {"usr", "usr/local", "usr/local/sbin"}


class TestFolders:
    """Where the installer looks for what it installs."""

    @pytest.mark.parametrize("mount_dir", [False, True])
    def test_nothing_is_taken_from_where_root_happens_to_be(
        self, guest: Guest, tmp_path: Path, mount_dir: bool
    ) -> None:
        """Whoever may write into /tmp could have root run his program, or send the reports elsewhere."""
        elsewhere, own = tmp_path / "elsewhere", tmp_path / "own"
        for folder in (elsewhere, own):
            folder.mkdir()
        (elsewhere / "onegate_publisher.sh").write_text("exit 0\n")
        (elsewhere / "context.sh").write_text("VMID='8'\nONEGATE_ENDPOINT='http://evil'\n")
        (elsewhere / "token.txt").write_text("evil")
        shutil.copy(INIT, own)
        shutil.copy(PUBLISHER, own)
        guest.has("systemctl")
        (guest.root / "run/systemd/system").mkdir(parents=True)
        environment = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
        if mount_dir:
            environment["MOUNT_DIR"] = str(guest.mount)
        result = subprocess.run(
            ["dash", own / INIT.name, "--root", guest.root],
            cwd=elsewhere,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert result.returncode == 0, result.stderr
        assert (guest.root / PROGRAM).read_bytes() == PUBLISHER.read_bytes()
        assert not (guest.root / "run/vmpack/reporter.env").exists()
        assert "no context found" in result.stderr

    def test_a_context_on_mnt_is_found(self, guest: Guest) -> None:
        """Guests of old packages, which mount the context there, would have no reporter."""
        shutil.rmtree(guest.mount)
        mnt = guest.root / "mnt"
        mnt.mkdir()
        shutil.copy(PUBLISHER, mnt)
        (mnt / "context.sh").write_text(f"VMID='7'\nONEGATE_ENDPOINT='{NOWHERE}'\n")
        (mnt / "token.txt").write_text(TOKEN)
        copy = shutil.copy(INIT, guest.root.parent)
        command = ["dash", copy, "--dry-run", "--root", guest.root]
        result = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert result.returncode == 0, result.stderr
        assert f"would: write {guest.root / 'run/vmpack/reporter.env'}\n" in result.stdout


class TestServices:
    """What service managers are told."""

    def test_systemd(self, guest: Guest) -> None:
        """The reporter would not come back after a reboot, or hold up the boot that starts it."""
        guest.has("systemctl")
        (guest.root / "run/systemd/system").mkdir(parents=True)
        guest.set_context()
        for _ in range(2):
            result = guest.init()
            assert result.returncode == 0, result.stderr
            assert guest.calls() == [
                "systemctl daemon-reload",
                "systemctl enable --quiet vmpack-onegate.service",
                "systemctl --no-block restart vmpack-onegate.service",
            ]
        unit = (guest.root / "etc/systemd/system/vmpack-onegate.service").read_text()
        assert f"ExecStart=/bin/sh {guest.root / PROGRAM}\n" in unit
        assert guest.pids() == []
        assert guest.init("uninstall").returncode == 0
        assert guest.calls()[0] == "systemctl --quiet disable --now vmpack-onegate.service"
        assert not list(guest.root.rglob("*onegate*"))

    def test_openrc(self, guest: Guest) -> None:
        """Alpine guests would have no reporter after a reboot."""
        guest.has("rc-service", "rc-update")
        (guest.root / "run/openrc").mkdir()
        guest.set_context()
        assert guest.init().returncode == 0
        assert guest.calls() == [
            "rc-update --quiet add vmpack-onegate default",
            "rc-service --quiet vmpack-onegate restart",
        ]
        script = guest.root / "etc/init.d/vmpack-onegate"
        assert script.stat().st_mode & 0o777 == 0o755
        assert f'command_args="{guest.root / PROGRAM}"\n' in script.read_text()
        assert guest.init("uninstall").returncode == 0
        assert guest.calls() == [
            "rc-service --quiet vmpack-onegate stop",
            "rc-update --quiet del vmpack-onegate",
        ]
        assert not list(guest.root.rglob("*onegate*"))

    def test_read_only_folders(self, guest: Guest) -> None:
        """Images with a read-only system could not report at all."""
        guest.has("systemctl")
        (guest.root / "run/systemd/system").mkdir(parents=True)
        for name in ("usr", "etc", "var"):
            (guest.root / name).write_text("not a folder: nothing can be made below it, not even by root")
        result = guest.init()
        assert result.returncode == 0, result.stderr
        program = guest.root / "run/vmpack/vmpack-onegate-publisher"
        unit = guest.root / "run/systemd/system/vmpack-onegate.service"
        assert program.read_bytes() == PUBLISHER.read_bytes()
        assert f"ExecStart=/bin/sh {program}\n" in unit.read_text()
        assert guest.calls() == [
            "systemctl daemon-reload",
            "systemctl --no-block restart vmpack-onegate.service",
        ]
        assert guest.init("uninstall").returncode == 0
        assert not list(guest.root.rglob("*onegate*"))


class TestWords:
    """What it says to people."""

    def test_a_dry_run_changes_nothing(self, guest: Guest) -> None:
        """An owner who looks first would have installed it by looking."""
        guest.set_context()
        for command in ((), ("uninstall",)):
            result = guest.init(*command, "--dry-run")
            assert result.returncode == 0, result.stderr
            assert guest.files() == set()
        assert f"would: write {guest.root / PROGRAM}" in guest.init("--dry-run").stdout

    def test_without_the_publisher_it_says_what_to_do(self, guest: Guest) -> None:
        """An owner who forgot one of the two files would only see that nothing happens."""
        (guest.mount / PUBLISHER.name).unlink()
        result = guest.init()
        assert result.returncode == 66
        assert "FILES_DS" in result.stderr
        assert guest.files() == set()

    @pytest.mark.parametrize("arguments", [("instal",), ("--purge",), ("status", "now")])
    def test_a_mistyped_word_is_refused(self, guest: Guest, arguments: tuple[str, ...]) -> None:
        """A typing mistake would install instead of asking."""
        result = guest.init(*arguments)
        assert result.returncode == 2
        assert guest.files() == set()

    def test_status_before_and_after(self, guest: Guest) -> None:
        """Nobody could see whether it runs."""
        assert guest.init("status").returncode == 3
        with OneGate(Vm(7, TOKEN)) as gate:
            guest.set_context(gate.endpoint)
            guest.init()
            said = eventually("it reports", lambda: _running(guest))
        assert f"installed  {guest.root / PROGRAM} (plain)" in said
        assert "state      reporting to http://127.0.0.1:" in said

    def test_help_teaches(self) -> None:
        """An owner could not find out how to add it to a template, or how to take it out."""
        text = subprocess.run(["sh", INIT, "--help"], capture_output=True, text=True, check=True).stdout
        for word in ("FILES_DS", "INIT_SCRIPTS", "VMPACK_REPORT_INTERVAL", "uninstall", "--dry-run"):
            assert word in text


def _running(guest: Guest) -> str | None:
    """What status says, once there is a state to tell."""
    result = guest.init("status")
    return result.stdout if "reporting" in result.stdout else None
