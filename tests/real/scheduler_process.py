"""`vcpu_scheduler` in a process of its own, as an administrator runs it; it ends with its test."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from tests.real.program_process import ProgramProcess
from vmpack.model.pins import format_cpus

_LOOK = re.compile(r"^\S+ \d+ vCPUs? of \d+ VMs? on ", re.MULTILINE)
_CHANGE = re.compile(r"^\S+ (\S+): vCPU \d+: pCPU (\S+) -> (\S+), (\w+)", re.MULTILINE)


class SchedulerProcess(ProgramProcess):
    """`vcpu_scheduler` on a lab."""

    def __init__(
        self,
        folder: Path,
        uri: str,
        *options: str,
        interval: str = "2",
        reserved_cpus: Collection[int] = (),
    ) -> None:
        config = (
            f'[agent]\nrun_dir = "{folder / "run"}"\nstate_dir = "{folder / "state"}"\n'
            f'[vcpu]\nreserved_cpus = "{format_cpus(sorted(reserved_cpus)) if reserved_cpus else ""}"\n'
        )
        words = (interval, "--verbose", "--connect", uri, *options)
        super().__init__(folder, "vmpack.cli.vcpu_scheduler", *words, config=config)

    def changes(self) -> list[tuple[str, str, str]]:
        """Guest, pCPUs before and after, of each change that it says it made."""
        found = _CHANGE.findall(self.log)
        assert all(status == "done" for *_, status in found), self.log
        return [(name, before, after) for name, before, after, _ in found]

    def _turns(self) -> int:
        return len(_LOOK.findall(self.log))

    def await_changes(self, count: int) -> None:
        """Wait until it has made so many changes in all."""
        self.wait(f"{count} changes", lambda: len(self.changes()) >= count)
