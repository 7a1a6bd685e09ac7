"""The real parts of the vCPU loop, put together; and the loop as a thread beside another, or as a program.

Used by the agent and by `vcpu_scheduler`. Promises that two of them never pin on the same libvirt at once,
that an agent which has to wait for the other one goes on to try, and that stopping takes off every pin of
vmpack's, unless it only observed or never had the right to pin.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext, suppress
from pathlib import Path

from vmpack import __version__
from vmpack.act.affinity import AffinityExecutor
from vmpack.act.pinning import pin_vcpu
from vmpack.act.thread_masks import online_cpus
from vmpack.clock import SystemClock
from vmpack.clouds.opennebula_placement import placement, refuse_placed
from vmpack.config import Config
from vmpack.decide.vcpu.plan import plan, remember
from vmpack.errors import AlreadyRunningError, UnavailableError, VmpackError
from vmpack.host.lock import HostLock
from vmpack.host.state import State
from vmpack.host.stop_signals import StopSignals
from vmpack.host.vcpu_loop import VcpuLoop, outcome_line
from vmpack.hypervisor import Hypervisor
from vmpack.model.pins import format_cpus
from vmpack.model.vcpu import AffinityOutcome, VcpuStatus
from vmpack.observe.host import parse_cpu_list
from vmpack.observe.topology import TopologyReader
from vmpack.observe.vcpus import VcpuSource
from vmpack.units import format_seconds

log = logging.getLogger(__name__)

STOP_WITHIN_S = 30.0
"""A turn that is under way ends within this, whatever libvirt does."""


class VcpuKeeper:
    """The loop with its own libvirt connection and clock; a turn fails while it may not pin here."""

    def __init__(
        self,
        config: Config,
        frozen: Callable[[], bool],
        *,
        beside_others: bool = False,
        after_turn: Callable[[VcpuStatus], None] = lambda _status: None,
        quiet_line_every: int | None = None,
    ) -> None:
        """Nothing is opened or changed yet. `beside_others`: it never pins, so another program may."""
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
        self._topology = source.topology
        self._beside_others = beside_others
        self._locks = ExitStack()
        self._may_begin = False
        self._executor = AffinityExecutor(
            self.hypervisor, everywhere=source.topology.everywhere, changed=source.read_again
        )
        self._gives_back = config.release_on_stop
        self.loop = VcpuLoop(
            clock=self.clock,
            source=source,
            permit=self.take,
            pinner=self._executor,
            plan=plan,
            remember=remember,
            settings=config.vcpu,
            observe_only=config.observe_only,
            after_turn=after_turn,
            quiet_line_every=quiet_line_every,
        )
        self.loop_thread = threading.Thread(target=self.loop.run, name="vCPUs", daemon=True)

    def take(self) -> None:
        """Take the right to pin here, until `drop`, unless it has it.

        Raises UnavailableError where this is not the machine that libvirt runs on, AlreadyRunningError where
        another program has the right, and VmpackError.
        """
        if self._may_begin:
            return
        self._refuse_other_machine()
        if not self._beside_others:
            self._locks.enter_context(vcpu_lock(self.hypervisor.identity()))
        self._may_begin = True

    def drop(self) -> None:
        """Give the right up."""
        self._may_begin = False
        self._locks.close()

    def start(self) -> None:
        """Turn in a thread of its own from now on."""
        self.loop_thread.start()

    def ask_to_stop(self) -> None:
        """No turn begins from now on."""
        self.clock.stop()

    def end(self) -> bool:
        """Wait for the turn under way, give everything back, close. False where something could not be."""
        if self.loop_thread.is_alive():
            self.loop_thread.join(STOP_WITHIN_S)
        # Without the right, the pins that are there are another program's.
        given_back = not self._may_begin or self.give_back()
        self.hypervisor.close()
        return given_back

    def reconfigure(self, config: Config) -> None:
        """Take over what may change while it runs."""
        self._gives_back = config.release_on_stop
        self.loop.reconfigure(config.observe_only)

    def give_back(self) -> bool:
        """Take off every pin of vmpack's, a killed one's too. False where that failed; it is then said."""
        return self.loop.status.observe_only or not self._gives_back or self.take_off()

    def take_off(self) -> bool:
        """Take off every pin of vmpack's now. False where that failed; it is then said."""
        try:
            with self.loop.lock:
                outcomes = self._executor.release()
        except VmpackError as error:
            log.error("pins of vCPUs stay: %s; `vmpack release --all` takes them off", error)
            return False
        return _told(outcomes)

    def _refuse_other_machine(self) -> None:
        """Raises UnavailableError where libvirt's CPUs are not those of this machine, which it plans with."""
        theirs = self.hypervisor.call("ask for the host's CPUs", online_cpus)[1]
        ours = self._topology.online()
        if theirs != ours:
            there, here = format_cpus(theirs), format_cpus(ours)
            raise UnavailableError(
                f"libvirt at {self.hypervisor.uri} has the CPUs {there}, this machine has {here}",
                "vCPUs are pinned by a program on their own host: run it there",
            )


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

    def settle(self) -> None:
        """Wait until a turn that is under way has ended."""
        if self._keeper is not None:
            with self._keeper.loop.lock:
                pass

    def pin(self, vm: str, vcpu: int, cpus: Sequence[int]) -> str:
        """Pin a vCPU by hand, to any CPU with none; the VM's name. Raises VmpackError."""
        with self._keeper.loop.lock if self._keeper else nullcontext():
            return pin_vcpu(self._hypervisor, vm, vcpu, cpus, refuse_placed, dry_run=False)


def vcpu_lock(identity: str) -> HostLock:
    """The right to pin the vCPUs of the libvirt with this Hypervisor.identity()."""
    return HostLock(
        f"{identity}/vcpus",
        what="the vCPUs of this libvirt",
        holder="an agent or vcpu_scheduler",
        instead="use it where it is an agent (`vmpack status`), or stop it first",
    )


def keeper_beside(
    config: Config, state: State, after_turn: Callable[[VcpuStatus], None], at_end: ExitStack
) -> VcpuKeeper | None:
    """The agent's keeper, which drops its right `at_end`; None with the mode `off`.

    Where it may not pin here yet, its turns say why and try again. With the mode `off`, what a killed one
    left is taken off.
    """
    keeper = VcpuKeeper(config, state.frozen, after_turn=after_turn)
    if config.vcpu.mode == "off":
        _take_off_leftovers(keeper, config)
        return None
    at_end.callback(keeper.drop)
    with suppress(VmpackError):
        keeper.take()
    return keeper


def _take_off_leftovers(keeper: VcpuKeeper, config: Config) -> None:
    """Take off what a killed one left, unless another program looks after it; what stays is said."""
    try:
        with vcpu_lock(keeper.hypervisor.identity()):
            given_back = config.observe_only or keeper.take_off()
    except AlreadyRunningError:
        return
    except VmpackError as error:
        log.warning("whether pins of vmpack were left here is not known: %s", error)
        return
    finally:
        keeper.hypervisor.close()
    if not given_back:
        log.warning("vcpu.mode is off, but pins of vmpack stay: vmpack release --all")


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
    with StopSignals(stay_ignored=(signal.SIGTERM, signal.SIGINT, signal.SIGHUP)) as signals:
        keeper = VcpuKeeper(
            config,
            State(config.state_dir).frozen,
            beside_others=config.observe_only,
            quiet_line_every=quiet_line_every,
        )
        signals.watch(keeper.clock.stop, "pins stay")
        return signals.exit_code(_keep_vcpus(keeper, config, once))


def _keep_vcpus(keeper: VcpuKeeper, config: Config, once: bool) -> bool:
    """Turn until stopped, give back, close. False where a turn or the giving back failed."""
    with ExitStack() as at_end:
        at_end.callback(keeper.drop)
        keeper.take()
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
    return given_back and keeper.loop.status.last_error is None
