"""One VM of OpenNebula on its node: found by its number, held still while an action moves it.

Called by hooks.py. Promises that a hold ends by itself, whatever becomes of its holder, and that what people
hold stays held.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from typing import Any
from xml.etree.ElementTree import Element

from vmpack.act.driver import LibvirtDriver
from vmpack.clock import Clock
from vmpack.errors import BadDataError, VmpackError
from vmpack.host.client import AgentClient
from vmpack.hypervisor import Hypervisor, find_domain, job_name, translated
from vmpack.model.codec import dumps, loads
from vmpack.model.guest import GuestPolicy
from vmpack.model.pins import Pin
from vmpack.model.policy_namespace import ACTION_HOLD_S
from vmpack.observe.policy import read_policy


@dataclass(frozen=True, slots=True)
class NodeVm:
    """One VM as its node's libvirt has it."""

    uuid: str
    name: str
    domain: Element
    policy: GuestPolicy


@dataclass(frozen=True, slots=True)
class Before:
    """What was before an action began; kept by its wrapper as one word."""

    policy: GuestPolicy
    pins: tuple[Pin, ...] = ()
    """Taken off, for the VM is to leave."""

    def word(self) -> str:
        """As letters, digits, - and _ alone, so that any shell hands it on."""
        return base64.urlsafe_b64encode(dumps(self).encode()).decode().rstrip("=")

    @classmethod
    def of_word(cls, word: str) -> Before:
        """Raises BadDataError."""
        try:
            text = base64.urlsafe_b64decode(word + "=" * (-len(word) % 4))
        except (binascii.Error, ValueError) as error:
            raise BadDataError("what was noted before the action is not readable") from error
        return loads(cls, text)


class Node:
    """This node's libvirt and its agent, which may be dead."""

    def __init__(self, hypervisor: Hypervisor, agent: AgentClient, clock: Clock) -> None:
        self.hypervisor = hypervisor
        self._agent = agent
        self._clock = clock
        self._driver = LibvirtDriver(hypervisor)

    def vm(self, vmid: int) -> NodeVm:
        """The VM of this number. Raises GuestGoneError, and what Hypervisor.call raises."""
        name = f"one-{vmid}"

        def look(connection: Any) -> tuple[str, str]:
            with translated(f"find the VM {name}"):
                domain = connection.lookupByName(name)
                return domain.UUIDString(), domain.XMLDesc(0)

        uuid, xml = self.hypervisor.call(f"look at the VM {name}", look)
        domain = ElementTree.fromstring(xml)
        return NodeVm(uuid, name, domain, read_policy(domain)[0])

    def hold(self, vm: NodeVm) -> NodeVm:
        """Leave this VM's memory as it is for ACTION_HOLD_S from now. Raises what Hypervisor.call raises.

        The agent ends what it has in hand before it answers; without one nobody moves memory, and the hold is
        for an agent that starts meanwhile.
        """
        until_s = self._clock.wall_s() + ACTION_HOLD_S
        held = dataclasses.replace(vm.policy, action_until_s=until_s)
        try:
            self._agent.set_policy(vm.uuid, {"action_until_s": until_s})
        except VmpackError:
            self._driver.write_policy(vm.uuid, held)
        return dataclasses.replace(vm, policy=held)

    def has_job(self, vm: NodeVm) -> bool:
        """True when libvirt itself is moving or saving it. Raises what Hypervisor.call raises."""

        def ask(connection: Any) -> str | None:
            return job_name(find_domain(connection, vm.uuid))

        return self.hypervisor.call(f"ask {vm.name} for its job", ask) is not None

    def write(self, vm: NodeVm, policy: GuestPolicy) -> None:
        """Make this the VM's policy; an agent sees it at once. Raises what Hypervisor.call raises."""
        if policy != vm.policy:
            self._driver.write_policy(vm.uuid, policy)
