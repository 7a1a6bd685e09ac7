"""Two hosts in memory for migration: what each libvirt shows, and what happens when a VM is sent."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

import libvirt

from tests.fake_libvirt import error
from vmpack.errors import HypervisorLostError, UnavailableError
from vmpack.hypervisor import translated
from vmpack.model.pins import PINS_NAMESPACE
from vmpack.model.policy_namespace import POLICY_NAMESPACE
from vmpack.units import KIB, MIB

T = TypeVar("T")

UUID = "11111111-2222-4333-8444-555555555555"
NOMINAL, BALLOON = 160 * MIB, 112 * MIB
RUNNING, PAUSED, SHUTOFF = 1, 3, 5
XML = f"""<domain><name>web</name>
<metadata><vmpack:policy xmlns:vmpack="{POLICY_NAMESPACE}" shares="2000"/></metadata>
<devices><memballoon model="virtio"><stats period="2"/></memballoon>%s</devices></domain>"""
BARE_XML = "<domain><name>web</name><devices><memballoon model='virtio'/></devices></domain>"


class Vm:
    """A virDomain on one of the hosts."""

    def __init__(self, host: FakeHost, uuid: str = UUID, name: str = "web") -> None:
        self.host, self._uuid, self._name = host, uuid, name
        self.run_state = RUNNING
        self.xml = XML % ""
        self.job: dict[str, int] = {"type": 0}
        self.persistent = False
        self.periods: list[int] = []
        self.policies: list[str] = []
        self.mask: tuple[bool, ...] = (True, True)
        self.pins: str | None = None
        self.aborts = 0
        self.downtimes_ms: list[int] = []

    def name(self) -> str:
        return self._name

    def UUIDString(self) -> str:
        return self._uuid

    def state(self) -> list[int]:
        return [self.run_state, 1]

    def isActive(self) -> bool:
        return self.run_state != SHUTOFF

    def isPersistent(self) -> bool:
        return self.persistent

    def info(self) -> list[int]:
        return [self.run_state, NOMINAL // KIB, BALLOON // KIB, 1, 0]

    def maxMemory(self) -> int:
        return NOMINAL // KIB

    def metadata(self, _kind: int, namespace: str, _flags: int = 0) -> str:
        if namespace == PINS_NAMESPACE and self.pins is not None:
            return self.pins
        raise error(libvirt.VIR_ERR_NO_DOMAIN_METADATA)

    def vcpus(self) -> tuple[list[tuple[int, int, int, int]], list[tuple[bool, ...]]]:
        return [(0, 1, 0, 0)], [self.mask]

    def pinVcpu(self, _number: int, cpus: tuple[bool, ...]) -> None:
        self.host.change()
        self.mask = cpus

    def memoryStats(self) -> dict[str, int]:
        return {"actual": BALLOON // KIB}

    def XMLDesc(self, _flags: int) -> str:
        return self.xml

    def jobStats(self, flags: int = 0) -> dict[str, int]:
        if flags == libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED:
            return {"downtime": 77, "data_processed": 80 * MIB}
        job = self.job
        self.host.world.on_job_stats()
        return job

    def migrateSetMaxDowntime(self, limit_ms: int) -> None:
        self.downtimes_ms.append(limit_ms)

    def setMemoryStatsPeriod(self, period_s: int, _flags: int) -> None:
        self.host.change()
        self.periods.append(period_s)

    def setMetadata(self, _kind: int, text: str | None, _prefix: str, namespace: str, _flags: int) -> None:
        self.host.change()
        if namespace == PINS_NAMESPACE:
            self.pins = text
        else:
            self.policies.append(text or "")

    def abortJob(self) -> None:
        self.aborts += 1
        self.host.world.abort()

    def migrateToURI3(self, uri: str, parameters: dict[str, Any], flags: int) -> None:
        self.host.world.sent = (uri, parameters, flags)
        self.host.world.journey()


class FakeHost:
    """One host: its Hypervisor and its virConnect in one."""

    def __init__(self, world: World, uri: str) -> None:
        self.world, self.uri = world, uri
        self.vms: dict[str, Vm] = {}
        self.down = False
        self.read_only = False
        self.free_bytes = self.total_bytes = 1024 * MIB

    def call(self, what: str, function: Callable[[Any], T], *, deadline_s: float = 5.0) -> T:
        if self.down:
            raise UnavailableError(f"could not {what}: nothing answers", "start it")
        with translated(what):
            return function(self)

    def identity(self) -> str:
        return self.call("ask who it is", lambda _: f"qemu/system/{self.uri}")

    def close(self) -> None:
        pass

    def change(self) -> None:
        if self.read_only:
            raise error(libvirt.VIR_ERR_OPERATION_FAILED)

    def lookupByUUIDString(self, uuid: str) -> Vm:
        if uuid not in self.vms:
            raise error(libvirt.VIR_ERR_NO_DOMAIN)
        return self.vms[uuid]

    def lookupByName(self, name: str) -> Vm:
        for vm in self.vms.values():
            if vm.name() == name:
                return vm
        raise error(libvirt.VIR_ERR_NO_DOMAIN)

    def listAllDomains(self, flags: int = 0) -> list[Vm]:
        wanted = flags & libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE
        return [vm for vm in self.vms.values() if vm.isActive() or not wanted]

    def getCPUMap(self) -> tuple[int, list[bool], int]:
        return 2, [True, True], 2

    def getMemoryStats(self, _node: int) -> dict[str, int]:
        return {"free": self.free_bytes // KIB, "total": self.total_bytes // KIB}


class World:
    """Hosts `here` and `there`, a VM on the first, and `journey`, which is what a migration does."""

    def __init__(self) -> None:
        self.here, self.there = FakeHost(self, "here"), FakeHost(self, "there")
        self.vm = self.here.vms[UUID] = Vm(self.here)
        self.sent: tuple[str, dict[str, Any], int] = ("", {}, 0)
        self.journey: Callable[[], None] = self.arrive
        self.aborted = threading.Event()
        self.on_abort: Callable[[], None] = self.aborted.set
        self.on_job_stats: Callable[[], None] = lambda: None

    def connect(self, uri: str) -> Any:
        return self.here if uri == "here" else self.there

    def abort(self) -> None:
        self.on_abort()

    def arrive(self) -> None:
        """The VM is there, with all that it had."""
        moved = self.there.vms[UUID] = Vm(self.there)
        moved.run_state, moved.persistent = self.vm.run_state, self.vm.persistent
        moved.xml = self.vm.xml
        self.here.vms.pop(UUID, None)

    def until_aborted(self) -> None:
        """It never ends by itself."""
        self.vm.job = moving_job()
        assert self.aborted.wait(60)
        self.vm.job = {"type": 0}
        raise error(libvirt.VIR_ERR_OPERATION_ABORTED)

    def lose_the_caller(self) -> None:
        """The connection breaks; libvirt goes on with the migration."""
        self.vm.job = moving_job()
        raise HypervisorLostError("could not migrate web: end of file")


def moving_job() -> dict[str, int]:
    """What jobStats shows of a migration on its way."""
    return {
        "type": 2, "operation": 5, "memory_total": 160 * MIB, "data_total": 160 * MIB,
        "data_remaining": 100 * MIB, "data_processed": 60 * MIB, "memory_dirty_rate": 512,
        "memory_page_size": 4096, "memory_iteration": 2, "auto_converge_throttle": 20,
    }  # fmt: skip
