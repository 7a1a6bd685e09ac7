"""A node in memory for tests of hooks: its libvirt with one VM, its agent or none, a clock."""

from __future__ import annotations

import dataclasses
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import libvirt

from tests.fake_libvirt import error
from tests.fake_vms import FakeClock
from vmpack.act.policy_xml import policy_xml
from vmpack.config import Config, load
from vmpack.drivers import hooks
from vmpack.drivers.hooks import Answer
from vmpack.drivers.node import Node
from vmpack.errors import AccessError, AgentBusyError, HypervisorLostError, UnavailableError
from vmpack.host.messages import PolicySet
from vmpack.hypervisor import translated
from vmpack.model.guest import GuestPolicy
from vmpack.model.policy_namespace import POLICY_NAMESPACE
from vmpack.observe.policy import read_policy
from vmpack.units import MIB

UUID = "5a0c7f3e-0000-4000-8000-00000000000c"
ACTION = (
    "<VMM_DRIVER_ACTION_DATA><HOST>a</HOST><VM><ID>12</ID><STATE>3</STATE><LCM_STATE>66</LCM_STATE>"
    "<TEMPLATE><MEMORY>512</MEMORY></TEMPLATE></VM></VMM_DRIVER_ACTION_DATA>"
)
DOMAIN = "<domain type='kvm'><memory>524288</memory><devices>\n</devices><metadata>\n</metadata></domain>"


class Libvirt:
    """A host with one VM, one-12, or none; stands for Hypervisor, connection and domain alike."""

    def __init__(self, policy: GuestPolicy) -> None:
        self.element = policy_xml(policy)
        self.there = True
        self.lost = False
        self.read_only = False
        self.pins_note: str | None = None
        self.pins = [(True,) * 4, (True,) * 4]
        self.job = 0
        self.versions = 9_000_000, 7_002_000

    def call(self, what: str, function: Callable[[Any], Any], *, deadline_s: float = 5.0) -> Any:
        if self.lost:
            raise HypervisorLostError(f"could not {what}")
        with translated(what):
            return function(self)

    def jobStats(self) -> dict[str, int]:
        return {"type": self.job}

    def name(self) -> str:
        return "one-12"

    def lookupByName(self, name: str) -> Libvirt:
        if not self.there or name != "one-12":
            raise error(libvirt.VIR_ERR_NO_DOMAIN)
        return self

    def lookupByUUIDString(self, uuid: str) -> Libvirt:
        assert uuid == UUID
        return self.lookupByName("one-12")

    def getLibVersion(self) -> int:
        return self.versions[0]

    def getVersion(self) -> int:
        return self.versions[1]

    def UUIDString(self) -> str:
        return UUID

    def isActive(self) -> bool:
        return True

    def isPersistent(self) -> bool:
        return False

    def XMLDesc(self, _flags: int) -> str:
        element = self.element or ""
        opening = f'<vmpack:policy xmlns:vmpack="{POLICY_NAMESPACE}"'
        return f"<domain><metadata>{element.replace('<policy', opening)}</metadata></domain>"

    def metadata(self, _kind: int, _uri: str, _flags: int) -> str:
        if self.pins_note is None:
            raise error(libvirt.VIR_ERR_NO_DOMAIN_METADATA)
        return self.pins_note

    def setMetadata(self, _kind: int, text: str | None, _prefix: str, uri: str, flags: int) -> None:
        assert flags == libvirt.VIR_DOMAIN_AFFECT_LIVE
        if self.read_only:
            raise error(libvirt.VIR_ERR_OPERATION_FAILED)
        if uri == POLICY_NAMESPACE:
            self.element = text
        else:
            self.pins_note = text

    def getCPUMap(self) -> tuple[int, list[bool], int]:
        return 4, [True] * 4, 4

    def vcpus(self) -> tuple[list[tuple[int, int, int, int]], list[tuple[bool, ...]]]:
        return [(number, 1, 0, 0) for number in range(len(self.pins))], self.pins

    def pinVcpu(self, vcpu: int, cpus: tuple[bool, ...]) -> None:
        self.pins[vcpu] = cpus

    @property
    def policy(self) -> GuestPolicy:
        return read_policy(ElementTree.fromstring(self.XMLDesc(0)))[0]

    @policy.setter
    def policy(self, value: GuestPolicy) -> None:
        self.element = policy_xml(value)


class Agent:
    """An agent that holds VMs, or fails to."""

    def __init__(self, host: Libvirt, failure: Exception | None) -> None:
        self.host, self.failure = host, failure

    def set_policy(self, uuid: str, changes: Mapping[str, Any]) -> PolicySet:
        if self.failure is not None:
            raise self.failure
        assert uuid == UUID
        self.host.policy = dataclasses.replace(self.host.policy, **changes)
        return PolicySet(uuid, "one-12", self.host.policy)


class Stage:
    """One node, the clock on its wall, and what was asked of vmpack."""

    def __init__(self, failure: Exception | None = None, policy: GuestPolicy | None = None) -> None:
        self.policy = policy or GuestPolicy(floor_bytes=64 * MIB, nominal_bytes=256 * MIB)
        self.host = Libvirt(self.policy)
        self.clock = FakeClock()
        agent = Agent(self.host, failure)
        self.node = Node(self.host, agent, self.clock)  # type: ignore[arg-type]
        self.config: Config = load(())

    def before(self, action: str, given: str = "", file: Path | None = None) -> Answer:
        return hooks.before(action, 12, given, file, self.node, self.config)

    def meanwhile(self) -> bool:
        return hooks.meanwhile(12, self.node)

    def after(self, action: str, code: int, word: str, given: str = ACTION) -> Answer:
        return hooks.after(action, 12, given, code == 0, word.removesuffix(hooks.AUTO_CONVERGE), self.node)


FAILURES = [
    None,
    UnavailableError("no agent answers"),
    AgentBusyError("it has no time"),
    AccessError("not in the group"),
]
