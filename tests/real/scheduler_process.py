"""`vcpu_scheduler` in a process of its own, as an administrator runs it; it ends with its test."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path
from types import TracebackType

from tests.waiting import PATIENCE_S, eventually
from vmpack.model.pins import format_cpus

_LOOK = re.compile(r"^\S+ \d+ vCPUs? of \d+ VMs? on ", re.MULTILINE)
_CHANGE = re.compile(r"^\S+ (\S+): vCPU \d+: pCPU (\S+) -> (\S+), (\w+)", re.MULTILINE)


class SchedulerProcess:
    """`vcpu_scheduler` on a lab, with its directories under one folder."""

    def __init__(
        self,
        folder: Path,
        uri: str,
        *options: str,
        interval: str = "2",
        reserved_cpus: Collection[int] = (),
    ) -> None:
        self.config_path, self._log_path = folder / "vmpack.toml", folder / "log"
        self.config_path.write_text(
            f'[agent]\nrun_dir = "{folder / "run"}"\nstate_dir = "{folder / "state"}"\n'
            f'[vcpu]\nreserved_cpus = "{format_cpus(sorted(reserved_cpus)) if reserved_cpus else ""}"\n'
        )
        argv = [sys.executable, "-m", "vmpack.cli.vcpu_scheduler", interval, "--verbose", "--connect", uri]
        argv += ["--config", str(self.config_path), *options]
        with self._log_path.open("wb") as log:
            self.process = subprocess.Popen(argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def __enter__(self) -> SchedulerProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    @property
    def log(self) -> str:
        """All that it printed."""
        return self._log_path.read_text()

    def changes(self) -> list[tuple[str, str, str]]:
        """Guest, pCPUs before and after, of each change that it says it made."""
        found = _CHANGE.findall(self.log)
        assert all(status == "done" for *_, status in found), self.log
        return [(name, before, after) for name, before, after, _ in found]

    def looks(self) -> int:
        """How many turns went through."""
        assert self.process.poll() is None, self.log
        return len(_LOOK.findall(self.log))

    def pass_looks(self, count: int) -> None:
        """Wait until so many more turns have gone through."""
        goal = self.looks() + count
        eventually(f"{count} more looks; it says:\n{self.log}", lambda: self.looks() >= goal)

    def await_changes(self, count: int) -> None:
        """Wait until it has made so many changes in all."""

        def made() -> bool:
            assert self.process.poll() is None, self.log
            return len(self.changes()) >= count

        eventually(f"{count} changes; it says:\n{self.log}", made)

    def stop(self, number: signal.Signals) -> int:
        """Send it a signal, and return its exit code."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)
