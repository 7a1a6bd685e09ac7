"""The real parts of the vCPU loop, put together; and the loop as a thread beside another, or as a program.

Used by the agent and by `vcpu_scheduler`. Promises that two of them never pin on the same libvirt at once,
and that stopping takes off every pin of vmpack's, unless it only observed.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType

from vmpack import __version__
from vmpack.act.affinity import AffinityExecutor
from vmpack.act.pinning import pin_vcpu
from vmpack.clock import SystemClock
from vmpack.clouds.opennebula_placement import placement, refuse_placed
from vmpack.config import Config
from vmpack.decide.vcpu.plan import plan
from vmpack.errors import VmpackError
from vmpack.host.lock import HostLock
from vmpack.host.state import State
from vmpack.host.vcpu_loop import VcpuLoop, outcome_line
from vmpack.hypervisor import Hypervisor
from vmpack.model.vcpu import AffinityOutcome, VcpuStatus
from vmpack.observe.host import parse_cpu_list
from vmpack.observe.topology import TopologyReader
from vmpack.observe.vcpus import VcpuSource
from vmpack.units import format_seconds

log = logging.getLogger(__name__)

EXIT_INTERRUPTED = 130
OUTPUT_GONE = signal.SIGPIPE
STOP_WITHIN_S = 30.0
"""A turn that is under way ends within this, whatever libvirt does."""


class VcpuKeeper:
    """The loop with its own libvirt connection and clock."""

    def __init__(
        self,
        config: Config,
        frozen: Callable[[], bool],
        *,
        after_turn: Callable[[VcpuStatus], None] = lambda _status: None,
        quiet_line_every: int | None = None,
    ) -> None:
        """Nothing is opened or changed yet."""
        self.clock = SystemClock()
        self.hypervisor = Hypervisor(config.connect_uri)
        reserved = frozenset(parse_cpu_list(config.vcpu.reserved_cpus))
        source = VcpuSource(
            self.hypervisor,
            self.clock,
            reserved=lambda: reserved,
            frozen=frozen,
            placed=lambda domain: placement(domain) is not None,
        )
        self._executor = AffinityExecutor(
            self.hypervisor, everywhere=source.topology.everywhere, changed=source.read_again
        )
        self._gives_back = config.release_on_stop
        self.loop = VcpuLoop(
            clock=self.clock,
            source=source,
            pinner=self._executor,
            plan=plan,
            settings=config.vcpu,
            observe_only=config.observe_only,
            after_turn=after_turn,
            quiet_line_every=quiet_line_every,
        )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """The right to pin its vCPUs. Raises AlreadyRunningError, and what Hypervisor.call raises."""
        with HostLock(f"{self.hypervisor.identity()}/vcpus", what="the vCPUs of this libvirt"):
            yield

    @contextmanager
    def beside(self) -> Iterator[None]:
        """Turn in a thread of its own meanwhile; at the end everything is given back. Take the lock first."""
        thread = threading.Thread(target=self.loop.run, name="vCPUs", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self.clock.stop()
            thread.join(STOP_WITHIN_S)
            self.give_back()
            self.hypervisor.close()

    def give_back(self) -> bool:
        """Take off every pin of vmpack's, a killed one's too. False where that failed; it is then said."""
        if self.loop.status.observe_only or not self._gives_back:
            return True
        try:
            with self.loop.lock:
                outcomes = self._executor.release()
        except VmpackError as error:
            log.error("pins of vCPUs stay: %s; `vmpack release --all` takes them off", error)
            return False
        return _told(outcomes)


class Vcpus:
    """What the service can be asked and told of vCPUs, with a loop or without."""

    def __init__(self, hypervisor: Hypervisor, keeper: VcpuKeeper | None = None) -> None:
        self._hypervisor = hypervisor
        self._keeper = keeper

    @property
    def status(self) -> VcpuStatus | None:
        """None where no loop runs."""
        return None if self._keeper is None else self._keeper.loop.status

    def release(self, uuids: frozenset[str] | None) -> tuple[AffinityOutcome, ...]:
        """Take off vmpack's pins of these VMs, of all with None, whoever set them. Raises VmpackError."""
        executor = AffinityExecutor(self._hypervisor, everywhere=TopologyReader(Path("/sys")).everywhere)
        with self._keeper.loop.lock if self._keeper else nullcontext():
            return executor.release(uuids)

    def pin(self, vm: str, vcpu: int, cpus: Sequence[int]) -> str:
        """Pin a vCPU by hand, to any CPU with none; the VM's name. Raises VmpackError."""
        with self._keeper.loop.lock if self._keeper else nullcontext():
            return pin_vcpu(self._hypervisor, vm, vcpu, cpus, refuse_placed, dry_run=False)


def _told(outcomes: tuple[AffinityOutcome, ...]) -> bool:
    """Say what came of giving pins back; False where one stays that should not."""
    done = sum(outcome.status == "done" for outcome in outcomes)
    if done:
        log.info("%d pins of vCPUs taken off", done)
    for outcome in outcomes:
        if outcome.status != "done":
            level = logging.WARNING if outcome.status == "failed" else logging.INFO
            log.log(level, "%s", outcome_line(outcome))
    return not any(outcome.status == "failed" for outcome in outcomes)


def run_vcpu_scheduler(config: Config, *, once: bool = False, quiet_line_every: int | None = None) -> int:
    """Keep the vCPUs of one host until SIGTERM, SIGINT, SIGHUP or OUTPUT_GONE; the exit code.

    `once` decides after two looks: the first one only begins to count. Raises VmpackError when it cannot
    start.
    """
    keeper = VcpuKeeper(config, State(config.state_dir).frozen, quiet_line_every=quiet_line_every)
    stopped_by: list[int] = []

    def stop(number: int, _frame: FrameType | None) -> None:
        if stopped_by and number in (signal.SIGINT, signal.SIGTERM):
            os._exit(128 + number)
        stopped_by.append(number)
        keeper.clock.stop()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, OUTPUT_GONE):
        if signal.getsignal(number) is not signal.SIG_IGN or number == OUTPUT_GONE:
            signal.signal(number, stop)
    with keeper.locked():
        vcpu = config.vcpu
        log.info(
            "vmpack %s balances the vCPUs on %s every %s (%s, to %g points)%s",
            __version__,
            config.connect_uri,
            format_seconds(vcpu.interval_s),
            vcpu.mode,
            vcpu.target_points,
            ", observing only" if config.observe_only else "",
        )
        if once:
            keeper.loop.attempt()
            if not keeper.clock.wait(vcpu.interval_s):
                keeper.loop.attempt()
        else:
            keeper.loop.run()
        given_back = keeper.give_back()
    keeper.hypervisor.close()
    if signal.SIGINT in stopped_by:
        return EXIT_INTERRUPTED
    return 0 if given_back and keeper.loop.status.last_error is None else 1
