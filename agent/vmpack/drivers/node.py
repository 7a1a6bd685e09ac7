"""One VM of OpenNebula on its node: found by its number, held still while an action moves it.

Called by hooks.py and actions.py. Promises that a hold ends by itself, whatever becomes of its holder, and
that a longer one that somebody else set stays.
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
from vmpack.hypervisor import Hypervisor, translated
from vmpack.model.codec import dumps, loads
from vmpack.model.guest import GuestPolicy
from vmpack.observe.policy import read_policy

HOLD_S = 30.0
"""Until libvirt's own job keeps everybody else off the VM."""


@dataclass(frozen=True, slots=True)
class NodeVm:
    """One VM as its node's libvirt has it."""

    uuid: str
    name: str
    domain: Element
    policy: GuestPolicy


@dataclass(frozen=True, slots=True)
class Hold:
    """What was before an action began; kept by its wrapper as one word."""

    policy: GuestPolicy
    until_s: float | None
    """Of our own hold (Unix time), None where somebody holds the VM for longer."""

    def word(self) -> str:
        """As letters, digits, - and _ alone, so that any shell hands it on."""
        return base64.urlsafe_b64encode(dumps(self).encode()).decode().rstrip("=")

    @classmethod
    def of_word(cls, word: str) -> Hold:
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

    def hold(self, vm: NodeVm) -> Hold:
        """Leave this VM's memory as it is for HOLD_S. Raises what Hypervisor.call raises.

        The agent ends what it has in hand before it answers; without one nobody moves memory, and the hold is
        for an agent that starts meanwhile.
        """
        until_s = self._clock.wall_s() + HOLD_S
        if vm.policy.hold_until_s is not None and vm.policy.hold_until_s >= until_s:
            return Hold(vm.policy, None)
        try:
            held = self._agent.hold(vm.uuid, HOLD_S).policy.hold_until_s
        except VmpackError:
            self._driver.write_policy(vm.uuid, dataclasses.replace(vm.policy, hold_until_s=until_s))
            held = until_s
        return Hold(vm.policy, held)

    def write(self, vm: NodeVm, policy: GuestPolicy) -> None:
        """Make this the VM's policy; an agent sees it at once. Raises what Hypervisor.call raises."""
        if policy != vm.policy:
            self._driver.write_policy(vm.uuid, policy)
