"""What vmpack does right before and right after each stock VMM action. Called by cli/one_hook.py.

Promises: never raises; what fails is one sentence for the VM's log, and the stock action goes its way.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vmpack.act.pinning import drop_pins, put_pins_back
from vmpack.clouds.opennebula_policy import read_policy
from vmpack.clouds.opennebula_xml import DOCUMENT_LARGEST_CHARACTERS, VmXml, read_action, read_vm
from vmpack.config import Config
from vmpack.decide.report_period import wanted_period_s
from vmpack.drivers.deployment import prepared, promised_bytes
from vmpack.drivers.node import Before, Node, NodeVm
from vmpack.errors import CloudError, GuestGoneError, VmpackError
from vmpack.hypervisor import Hypervisor
from vmpack.model.guest import GuestPolicy

ACTIONS = ("deploy", "migrate", "save", "restore", "resize", "snapshot_revert")
_HELD = ("migrate", "save", "resize", "snapshot_revert")
_LEAVES = ("migrate", "save")
_NEW_NOMINAL = ("restore", "resize", "snapshot_revert")
"""After these oned's word on the VM's memory is newer than the one in its metadata, or the only one."""
NOT_NOTED = "; what its owner pays for is not noted: `vmpack vms --sync` on the front-end does that"
AUTO_CONVERGE = ".auto-converge"
_LIBVIRT_WITH_REPORTING, _QEMU_WITH_REPORTING = 6_009_000, 5_001_000


@dataclass(frozen=True, slots=True)
class Answer:
    """What the wrapper of an action is told."""

    warning: str = ""
    text: str = ""


def before(action: str, vmid: int, given: str, file: Path | None, node: Node, config: Config) -> Answer:
    """`given` is the action's input. The answer: for deploy the XML to deploy, else a word for `after`.

    The word of a migration ends with AUTO_CONVERGE where the VM does not say itself how it converges.
    """
    if action == "deploy":
        return _guarded(lambda: _deployment(given, file, node.hypervisor, config))
    return _guarded(lambda: _begun(action, vmid, given, node)) if action in _HELD else Answer()


def meanwhile(vmid: int, node: Node) -> bool:
    """Hold the VM for longer, as its action goes on; False when that is no longer needed.

    Raises VmpackError.
    """
    vm = node.vm(vmid)
    if vm.policy.action_until_s is None or node.has_job(vm):
        return False
    node.hold(vm)
    return True


def after(action: str, vmid: int, given: str, succeeded: bool, word: str, node: Node) -> Answer:
    """End our hold, and write down what the VM's owner pays for now. `word` is what `before` answered."""

    def work() -> Answer:
        try:
            vm = node.vm(vmid)
        except GuestGoneError:
            # It has moved or was saved: the hold goes with it and ends by itself.
            return Answer()
        begun = Before.of_word(word) if word else None
        policy = _as_before(action, vm, begun, succeeded)
        try:
            if begun is not None and begun.pins and not succeeded:
                put_pins_back(node.hypervisor, vm.uuid, begun.pins)
            if succeeded and action in _NEW_NOMINAL:
                policy = dataclasses.replace(policy, nominal_bytes=read_action(given).vm.memory_bytes)
        finally:
            node.write(vm, policy)
        return Answer()

    if action == "deploy":
        return Answer()
    told = _guarded(work)
    lost = told.warning and succeeded and action in _NEW_NOMINAL
    return Answer(told.warning + NOT_NOTED) if lost else told


def _begun(action: str, vmid: int, given: str, node: Node) -> Answer:
    """The VM is held, has no pins where it is to leave, and all of the memory where it is to grow.

    The stock action gives that memory, and an agent that were told of it only afterwards, or never, would
    take it back.
    """
    vm = node.vm(vmid)
    held, begun, warning = node.hold(vm), Before(vm.policy), ""
    try:
        if action in _LEAVES:
            begun = Before(vm.policy, drop_pins(node.hypervisor, vm.uuid))
        if action == "resize" and vm.policy.nominal_bytes is not None:
            nominal_bytes = max(vm.policy.nominal_bytes, read_action(given).vm.memory_bytes)
            node.write(held, dataclasses.replace(held.policy, nominal_bytes=nominal_bytes))
    except CloudError:
        pass  # `after` reads it again, and tells
    except VmpackError as error:
        warning = error.message
    converges = action == "migrate" and _converges(given)
    return Answer(warning, begun.word() + AUTO_CONVERGE if converges else begun.word())


def _converges(given: str) -> bool:
    """May the guest be slowed down? Not where its owner says how: virsh takes the option once only."""
    try:
        features = read_action(given).vm.template.vectors.get("FEATURES", ())
    except VmpackError:
        return False
    return not any(vector.get("MIGRATE_AUTO_CONVERGE", "").strip() for vector in features)


def _as_before(action: str, vm: NodeVm, begun: Before | None, succeeded: bool) -> GuestPolicy:
    """The VM's policy without our hold; after a revert, which brings an old one back, the newer one."""
    if begun is not None and action == "snapshot_revert" and succeeded:
        policy = begun.policy
    elif begun is not None and action == "resize" and not succeeded:
        policy = dataclasses.replace(vm.policy, nominal_bytes=begun.policy.nominal_bytes)
    else:
        policy = vm.policy
    return dataclasses.replace(policy, action_until_s=None)


def _deployment(given: str, file: Path | None, hypervisor: Hypervisor, config: Config) -> Answer:
    nominal_bytes = promised_bytes(given)
    policy, warning = GuestPolicy(), ""
    try:
        vm = _owners_words(file)
    except VmpackError as error:
        vm, warning = None, error.message
    if vm is not None:
        values = vm.user_template.values
        policy, _, faults, _ = read_policy(values, nominal_bytes, config.opennebula.shares_max)
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
