"""The agent: the loop of one host with its socket, its signals, its lock and its end.

Called by `vmpack agent` and `memory_coordinator`. Promises that a second agent on the same libvirt does not
start, that stopping gives memory back (unless told otherwise, or only observing) and says what stays packed
and why, and that a bad configuration on SIGHUP leaves the old one in force.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

from vmpack import __version__
from vmpack.clock import SystemClock
from vmpack.config import Config, ConfigMistakes, needs_restart
from vmpack.errors import UnavailableError, VmpackError
from vmpack.host.lock import host_locks
from vmpack.host.loop import Loop, printable, summary_line
from vmpack.host.notify import Notifier
from vmpack.host.parts import Parts, real_parts
from vmpack.host.peer import Rights, group_id
from vmpack.host.pressure_trigger import PressureTrigger
from vmpack.host.probe_grant import probe_grant_bytes
from vmpack.host.server import Server
from vmpack.host.service import HostService
from vmpack.host.stop_signals import StopSignals
from vmpack.host.vcpus import VcpuKeeper, Vcpus, keeper_beside
from vmpack.hypervisor import Hypervisor
from vmpack.model.interval import AgentStatus
from vmpack.observe.machine import read_machine
from vmpack.observe.source import HostSource
from vmpack.publish.publisher import Publisher
from vmpack.units import format_bytes, format_seconds

log = logging.getLogger(__name__)

RELEASE_TIME_S = 120.0
LIBVIRT_AGAIN_S = 5.0
TEXTFILE_NAME = "vmpack.prom"


def run_agent(
    config: Config,
    reload: Callable[[], Config] | None,
    *,
    once: bool = False,
    quiet_line_every: int | None = None,
) -> int:
    """Keep one host until SIGTERM, SIGINT or OUTPUT_GONE; `once` ends after one interval.

    `reload` reads the configuration again for SIGHUP; with None SIGHUP stops too, except under nohup.
    Returns the exit code. Raises VmpackError when the agent cannot start.
    """
    with StopSignals(stay_ignored=() if reload else (signal.SIGHUP,)) as signals:
        return Agent(config, reload, quiet_line_every, signals).run(once)


class Agent:
    """One running agent."""

    def __init__(
        self,
        config: Config,
        reload: Callable[[], Config] | None,
        quiet_line_every: int | None,
        signals: StopSignals,
    ) -> None:
        self._config = config
        self._reload = reload
        self._signals = signals
        self._clock = SystemClock()
        self._notifier = Notifier()
        self._quiet_line_every = quiet_line_every
        self._running: Loop | None = None
        self._keeper: VcpuKeeper | None = None

    def run(self, once: bool) -> int:
        """Start, turn until told to stop, give back, end."""
        config = self._config
        parts = real_parts(config, ask_guests=config.ask_guests, look_at_gpus=True)
        # Before the first call opens the connection: who watches later hears nothing.
        parts.hypervisor.watch("BALLOON_CHANGE", lambda _uuid: self._look_now())
        with ExitStack() as at_end:
            at_end.callback(parts.hypervisor.close)
            at_end.callback(parts.kernels.close)
            at_end.callback(parts.gpus.close)
            rights = Rights(group_id(config.socket_group), config.socket_group_may_change)
            identity = self._identity(parts.hypervisor)
            if identity is None:
                return self._signals.exit_code(True)
            at_end.enter_context(host_locks(identity, config.state_dir))
            parts.state.prepare()
            publisher = _publisher(config)
            loop = self._running = self._loop(parts, publisher)
            trigger = PressureTrigger(lambda: loop.wake("tasks on this host wait for memory"))
            at_end.callback(trigger.stop)
            keeper = self._keeper = keeper_beside(config, parts.state, publisher.publish_vcpus, at_end)
            service = _service(loop, parts, publisher, Vcpus(parts.hypervisor, keeper))
            server = Server(config.socket_path, service, rights)
            # Only now is the run directory ours: closing takes probe texts away.
            at_end.callback(publisher.close)
            server.start()
            at_end.callback(server.stop)
            take_new = self._reload and partial(
                self._take_new_configuration, loop, parts.source, publisher, self._reload
            )
            self._signals.watch(self._clock.stop, "memory stays packed", take_new)
            try:
                if keeper and not once:
                    keeper.start()
                self._turn(loop, once)
            finally:
                given_back = self._give_back(loop, parts)
        return self._signals.exit_code(given_back and loop.status.last_error is None)

    def _identity(self, hypervisor: Hypervisor) -> str | None:
        """Which host this is; None when the agent was stopped before libvirt answered.

        A service waits for a libvirt that is not there yet: if it gave up, it would stay down for good.
        Raises UnavailableError where nobody but a person started the agent, and what Hypervisor.call raises.
        """
        waits = False
        while True:
            try:
                return hypervisor.identity()
            except UnavailableError as error:
                if not self._notifier.is_heard:
                    raise
                if not waits:
                    log.warning("%s; the agent waits for it", error)
                    self._notifier.ready()
                waits = True
                self._notifier.alive(f"waiting: {error.message}")
            if self._signals.wait(LIBVIRT_AGAIN_S):
                return None

    def _look_now(self) -> None:
        if self._running is not None:
            self._running.nudge()

    def _turn(self, loop: Loop, once: bool) -> None:
        self._say_start(loop)
        self._notifier.ready()
        if not once:
            loop.run()
        elif loop.attempt() and (interval := loop.status.interval):
            log.info("%s", summary_line(interval))

    def _loop(self, parts: Parts, publisher: Publisher) -> Loop:
        config = self._config
        about = AgentStatus(
            version=__version__,
            pid=os.getpid(),
            uri=config.connect_uri,
            observe_only=config.observe_only,
            interval_s=config.settings.memory.interval_s,
            started_wall_s=self._clock.wall_s(),
            last_error=None,
            interval=None,
        )
        return Loop(
            clock=self._clock,
            source=parts.source,
            glance=parts.glancer.glance,
            actuator=parts.actuator,
            publisher=publisher,
            decision=parts.decision,
            settings=config.settings,
            remembered=parts.state.remembered(),
            save=parts.state.save,
            about=about,
            keep_learned=parts.lessons.keep,
            after_turn=self._tell_manager,
            quiet_line_every=self._quiet_line_every,
        )

    def _say_start(self, loop: Loop) -> None:
        config, packed = self._config, len(loop.remembered.guests)
        log.info(
            "vmpack %s on %s every %s%s%s; socket %s",
            __version__,
            config.connect_uri,
            format_seconds(config.settings.memory.interval_s),
            ", observing only" if config.observe_only else "",
            f", going on with {packed} remembered VMs" if packed else "",
            config.socket_path,
        )

    def _tell_manager(self, status: AgentStatus) -> None:
        if status.last_error is not None:
            self._notifier.alive(f"failing: {status.last_error}")
        elif status.interval is not None:
            observing = "observing: " if status.observe_only else ""
            self._notifier.alive(observing + summary_line(status.interval))

    def _take_new_configuration(
        self, loop: Loop, source: HostSource, publisher: Publisher, reload: Callable[[], Config]
    ) -> None:
        self._notifier.reloading()
        try:
            new = reload()
        except ConfigMistakes as error:
            for mistake in error.mistakes:
                log.error("%s", mistake)
            log.error("the old configuration stays in force")
        except VmpackError as error:
            log.error("%s; the old configuration stays in force", error)
        else:
            for name in needs_restart(self._config, new):
                log.warning("%s: changed, but takes effect only after a restart", name)
            self._config = new
            with loop.lock:
                source.pretended_bytes = new.settings.host.memory_bytes
                publisher.grant = partial(probe_grant_bytes, settings=new.grant)
                loop.reconfigure(new.settings, new.observe_only)
            if self._keeper is not None:
                self._keeper.reconfigure(new)
            log.info("the new configuration is in force")
        self._notifier.ready()

    def _give_back(self, loop: Loop, parts: Parts) -> bool:
        """True unless memory or pins should have been given back and could not be."""
        self._notifier.stopping(RELEASE_TIME_S)
        if self._keeper is None:
            return self._give_memory_back(loop, parts)
        self._keeper.ask_to_stop()
        memory = self._give_memory_back(loop, parts)
        return self._keeper.end() and memory

    def _give_memory_back(self, loop: Loop, parts: Parts) -> bool:
        if self._config.observe_only and not loop.acted:
            return True
        if not self._config.release_on_stop:
            log.info("memory stays packed, as configured (agent.release_on_stop)")
            return True
        try:
            with loop.lock:
                given, remembered = parts.release.carry_out(loop.remembered, loop.settings, None)
                loop.keep(remembered)
        except VmpackError as error:
            log.error("memory stays packed: %s; `vmpack release --all` gives it back", error)
            return False
        log.info("stopped; %s given back", format_bytes(given.given_bytes))
        for left in given.still_packed:
            name, packed = printable(left.name), format_bytes(left.packed_bytes)
            log.warning("%s keeps %s packed: %s; what helps: %s", name, packed, left.why, left.cure)
        return True


def _publisher(config: Config) -> Publisher:
    return Publisher(
        config.run_dir,
        config.state_dir,
        machine=read_machine(),
        grant=partial(probe_grant_bytes, settings=config.grant),
        version=__version__,
        textfile_path=config.textfile_dir / TEXTFILE_NAME if config.textfile_dir else None,
        journal_cap_bytes=config.journal_cap_bytes,
        journal_segment_bytes=config.journal_segment_bytes,
        history_days=config.history_days,
    )


def _service(loop: Loop, parts: Parts, publisher: Publisher, vcpus: Vcpus) -> HostService:
    return HostService(
        loop=loop,
        clock=SystemClock(),
        source=parts.source,
        actuator=parts.actuator,
        policies=parts.driver,
        decision=parts.decision,
        release=parts.release,
        state=parts.state,
        lessons=parts.lessons,
        vcpus=vcpus,
        metrics=publisher.metrics,
    )
