"""VMs and a clock without libvirt, for tests of the executor: balloons move as time passes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from vmpack.act.driver import Live
from vmpack.errors import GuestBusyError, GuestGoneError, HypervisorError, HypervisorLostError
from vmpack.units import MIB


class FakeClock:
    """Time that passes only while somebody waits."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.stopping = False
        self.each_step: list[Callable[[float], None]] = []

    def time_s(self) -> float:
        return self.now_s

    def wall_s(self) -> float:
        return self.now_s + 1_700_000_000.0

    def wait(self, seconds: float) -> bool:
        self.now_s += seconds
        for step in self.each_step:
            step(seconds)
        return self.stopping


@dataclass
class FakeVm:
    """One VM's balloon; it moves towards its target at a rate, and never below its hard floor."""

    balloon_bytes: int
    nominal_bytes: int = 256 * MIB
    target_bytes: int | None = None
    rate_bytes_per_s: float = 1e12
    hard_floor_bytes: int = 0
    running: bool = True
    paused: bool = False
    job: str | None = None
    fault: str = ""
    period_s: int = 0

    def step(self, seconds: float) -> None:
        if self.target_bytes is None or self.paused:
            return
        way = int(min(abs(self.target_bytes - self.balloon_bytes), self.rate_bytes_per_s * seconds))
        if self.target_bytes > self.balloon_bytes:
            self.balloon_bytes += way
        else:
            lowest = min(self.balloon_bytes, self.hard_floor_bytes)
            self.balloon_bytes = max(self.balloon_bytes - way, lowest)


class FakeDriver:
    """The Driver over FakeVms; keeps what it was asked, in order, as (uuid, MiB)."""

    def __init__(self, clock: FakeClock, **vms: FakeVm) -> None:
        self.vms = vms
        self.asked: list[tuple[str, int]] = []
        self.granted_in_all_bytes: list[int] = []
        clock.each_step.append(lambda seconds: [vm.step(seconds) for vm in vms.values()])

    def look(self, uuid: str) -> Live:
        vm = self._vm(uuid)
        return Live(vm.balloon_bytes, vm.nominal_bytes, vm.running, vm.job, vm.paused)

    def balloon_bytes(self, uuid: str) -> int:
        return self._vm(uuid).balloon_bytes

    def set_memory(self, uuid: str, size_bytes: int) -> None:
        self._vm(uuid).target_bytes = size_bytes
        self.asked.append((uuid, size_bytes // MIB))
        self.granted_in_all_bytes.append(
            sum(max(vm.balloon_bytes, vm.target_bytes or 0) for vm in self.vms.values())
        )

    def set_stats_period(self, uuid: str, period_s: int) -> None:
        self._vm(uuid).period_s = period_s

    def _vm(self, uuid: str) -> FakeVm:
        if uuid not in self.vms:
            raise GuestGoneError(f"no VM {uuid}")
        faults = {
            "gone": GuestGoneError("gone"),
            "busy": GuestBusyError("no answer within 5 s"),
            "lost": HypervisorLostError("end of file"),
            "failed": HypervisorError("refused"),
        }
        if fault := self.vms[uuid].fault:
            raise faults[fault]
        return self.vms[uuid]
