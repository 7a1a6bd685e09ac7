"""What vmpack does right before and right after each stock VMM action. Called by cli/one_hook.py.

Promises: never raises; what fails is one sentence for the VM's log, and the stock action goes its way.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vmpack.clouds.opennebula_policy import read_policy
from vmpack.clouds.opennebula_xml import DOCUMENT_LARGEST_CHARACTERS, VmXml, read_action, read_vm
from vmpack.config import Config
from vmpack.decide.report_period import wanted_period_s
from vmpack.drivers.deployment import prepared, promised_bytes
from vmpack.drivers.node import Hold, Node, NodeVm
from vmpack.errors import CloudError, GuestGoneError, VmpackError
from vmpack.hypervisor import Hypervisor
from vmpack.model.guest import GuestPolicy

ACTIONS = ("deploy", "migrate", "save", "restore", "resize", "snapshot_revert")
_HELD = ("migrate", "save", "resize", "snapshot_revert")
_NEW_NOMINAL = ("restore", "resize", "snapshot_revert")
"""After these oned's word on the VM's memory is newer than the one in its metadata, or the only one."""
_LIBVIRT_WITH_REPORTING, _QEMU_WITH_REPORTING = 6_009_000, 5_001_000


@dataclass(frozen=True, slots=True)
class Answer:
    """What the wrapper of an action is told."""

    warning: str = ""
    text: str = ""


def before(action: str, vmid: int, given: str, file: Path | None, node: Node, config: Config) -> Answer:
    """`given` is the action's input. The answer: for deploy the XML to deploy, else a word for `after`."""
    if action == "deploy":
        return _guarded(lambda: _deployment(given, file, node.hypervisor, config))
    if action in _HELD:
        return _guarded(lambda: Answer(text=node.hold(node.vm(vmid)).word()))
    return Answer()


def after(action: str, vmid: int, given: str, succeeded: bool, word: str, node: Node) -> Answer:
    """End our hold, and write down what the VM's owner pays for now. `word` is what `before` answered."""

    def work() -> Answer:
        try:
            vm = node.vm(vmid)
        except GuestGoneError:
            # It has moved or was saved: the hold goes with it and ends by itself.
            return Answer()
        policy = _as_before(action, vm, Hold.of_word(word) if word else None, succeeded)
        try:
            if succeeded and action in _NEW_NOMINAL:
                policy = dataclasses.replace(policy, nominal_bytes=read_action(given).vm.memory_bytes)
        finally:
            node.write(vm, policy)
        return Answer()

    return Answer() if action == "deploy" else _guarded(work)


def _as_before(action: str, vm: NodeVm, hold: Hold | None, succeeded: bool) -> GuestPolicy:
    """The VM's policy without our hold; after a revert, which brings an old one back, the newer one."""
    if hold is None:
        return vm.policy
    if action == "snapshot_revert" and succeeded:
        return hold.policy
    if hold.until_s is None or vm.policy.hold_until_s != hold.until_s:
        return vm.policy
    return dataclasses.replace(vm.policy, hold_until_s=hold.policy.hold_until_s)


def _deployment(given: str, file: Path | None, hypervisor: Hypervisor, config: Config) -> Answer:
    nominal_bytes = promised_bytes(given)
    policy, warning = GuestPolicy(), ""
    try:
        vm = _owners_words(file)
    except VmpackError as error:
        vm, warning = None, error.message
    if vm is not None:
        values = vm.user_template.values
        policy, _, faults = read_policy(values, nominal_bytes, config.opennebula.shares_max)
        warning = faults[0] if faults else ""
    text = prepared(
        given,
        dataclasses.replace(policy, nominal_bytes=nominal_bytes),
        period_s=wanted_period_s(config.settings.memory),
        page_reporting=_can_report_pages(hypervisor),
    )
    return Answer(warning, text or "")


def _owners_words(file: Path | None) -> VmXml | None:
    """vm.xml, which oned writes beside the deployment file. Raises CloudError, UnavailableError."""
    if file is None:
        return None
    path = file.parent / "vm.xml"
    try:
        with path.open(encoding="utf-8") as stream:
            return read_vm(stream.read(DOCUMENT_LARGEST_CHARACTERS + 1))
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise CloudError(f"what its owner asks for is not known: {path}: {error}") from error


def _can_report_pages(hypervisor: Hypervisor) -> bool:
    def ask(connection: Any) -> bool:
        known = connection.getLibVersion() >= _LIBVIRT_WITH_REPORTING
        return bool(known and connection.getVersion() >= _QEMU_WITH_REPORTING)

    try:
        return hypervisor.call("ask libvirt for its version", ask)
    except VmpackError:
        return False


def _guarded(work: Callable[[], Answer]) -> Answer:
    try:
        return work()
    except VmpackError as error:
        return Answer(error.message)
