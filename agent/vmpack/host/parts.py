"""The real parts of one host, put together: libvirt, source, executor, state, decisions.

Used by the agent, and by a release without an agent; so both see and do the same.
"""

from __future__ import annotations

from dataclasses import dataclass

from vmpack.act.driver import LibvirtDriver
from vmpack.act.executor import Executor
from vmpack.clock import SystemClock
from vmpack.config import Config
from vmpack.decide.alarm import alarm
from vmpack.decide.memory import plan, remember
from vmpack.decide.release import plan_release
from vmpack.host.intent import FirstRemembered
from vmpack.host.lessons import Lessons
from vmpack.host.loop import Actuator, Decision
from vmpack.host.release import Release
from vmpack.host.state import State
from vmpack.hypervisor import Hypervisor
from vmpack.model.gpu_selection import GpuSelection
from vmpack.observe.glance import Glancer
from vmpack.observe.gpu import GpuReader
from vmpack.observe.guest_kernels import GuestKernels
from vmpack.observe.source import HostSource


@dataclass(frozen=True, slots=True)
class Parts:
    """One host's parts; `close()` of the hypervisor, kernels and gpus ends them."""

    hypervisor: Hypervisor
    state: State
    source: HostSource
    glancer: Glancer
    kernels: GuestKernels
    gpus: GpuReader
    driver: LibvirtDriver
    lessons: Lessons
    actuator: Actuator
    decision: Decision
    release: Release


def real_parts(config: Config, *, ask_guests: bool = False, look_at_gpus: bool = False) -> Parts:
    """Put the parts together; nothing is opened or written yet.

    With `ask_guests`, guest agents are asked what they lack from the first look until `kernels.close()`.
    With `look_at_gpus`, the configured GPUs are in the snapshots, and held open until `gpus.close()`.
    """
    hypervisor = Hypervisor(config.connect_uri)
    kernels = GuestKernels(Hypervisor(config.connect_uri))
    gpus = GpuReader(GpuSelection.parse(config.gpu.devices))
    state = State(config.state_dir)
    # A clock of their own that nobody stops: a stopping agent still has memory to give back.
    clock = SystemClock()
    source = HostSource(
        hypervisor,
        clock,
        pretended_bytes=config.settings.host.memory_bytes,
        frozen=state.frozen,
        claims=state.claims,
        kernels=kernels.told if ask_guests else lambda _uuids: {},
        gpus=gpus.read if look_at_gpus else lambda _users: (),
    )
    driver = LibvirtDriver(hypervisor, source.read_again)
    actuator = FirstRemembered(Executor(driver, clock), remember, state.save)
    release = Release(clock, source, actuator, plan_release, remember)
    return Parts(
        hypervisor=hypervisor,
        state=state,
        source=source,
        glancer=Glancer(hypervisor),
        kernels=kernels,
        gpus=gpus,
        driver=driver,
        lessons=Lessons(driver),
        actuator=actuator,
        decision=Decision(plan, remember, alarm),
        release=release,
    )
