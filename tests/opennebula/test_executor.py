"""The double of the executor is as strict as the real one: what it takes, refuses, and tells oned."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.opennebula.executor import Executor, Result, VmOrder


@pytest.fixture
def executor(tmp_path: Path) -> Executor:
    (tmp_path / "N/vmm/vmpack").mkdir(parents=True)
    return Executor(tmp_path / "N", "node-a", {"PATH": os.environ["PATH"], "OUT": str(tmp_path)})


def script(executor: Executor, name: str, text: str, mode: int = 0o755) -> None:
    path = executor.actions / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(mode)


def order(folder: Path) -> VmOrder:
    return VmOrder(12, 256, folder / "datastores/0/12", deploy_id="uuid-12")


RECORD = 'printf "%s\\n" "$@" >"$OUT/argv"; cat >"$OUT/stdin"'


def test_arguments_are_those_of_the_real_one(executor: Executor, tmp_path: Path) -> None:
    """Our actions would be tested with other arguments than they get."""
    vm = order(tmp_path)
    for name in ("save", "restore", "migrate", "resize", "cancel", "snapshot_revert"):
        script(executor, name, RECORD)
    seen = {}
    for name, call in {
        "save": lambda: executor.save(vm),
        "restore": lambda: executor.restore(vm),
        "migrate": lambda: executor.migrate(vm, "node-b"),
        "resize": lambda: executor.resize(vm, 512),
        "cancel": lambda: executor.cancel(vm),
        "snapshot_revert": lambda: executor.snapshot_revert(vm, "snap-0"),
    }.items():
        assert call() == Result(True, "-", ())
        seen[name] = (tmp_path / "argv").read_text().split()
    checkpoint = f"{vm.folder}//checkpoint"
    assert seen == {
        "save": ["uuid-12", checkpoint, "node-a", "12", "node-a"],
        "restore": [checkpoint, "node-a", "uuid-12", "12", "node-a"],
        "migrate": ["uuid-12", "node-b", "node-a", "12", "node-a"],
        "resize": ["uuid-12", "12", "node-a"],
        "cancel": ["uuid-12", "node-a", "12", "node-a"],
        "snapshot_revert": ["uuid-12", "snap-0", "12", "node-a"],
    }


def test_input_is_not_expanded_and_gets_a_last_line_end(executor: Executor, tmp_path: Path) -> None:
    """Our actions would never meet the $, the quotes and the line end that the real heredoc brings."""
    vm = order(tmp_path)
    script(executor, "deploy", f"{RECORD}; echo uuid-13")
    assert executor.deploy(vm, "<domain>$HOME `id` \\ 'x'</domain>").info == "uuid-13\n"
    assert (tmp_path / "stdin").read_text() == "<domain>$HOME `id` \\ 'x'</domain>\n"
    assert vm.deploy_id == "uuid-13" and (vm.folder / "vm.xml").exists()
    script(executor, "resize", RECORD)
    executor.resize(vm, 512)
    assert (tmp_path / "stdin").read_text().endswith("</VMM_DRIVER_ACTION_DATA>")


def test_errors_are_glued_and_logs_are_not(executor: Executor, tmp_path: Path) -> None:
    """A warning of ours that spoils an owner's message would not be seen."""
    script(
        executor, "save", "echo out; printf 'ERROR: save: x\\nWARN: y\\nWARN:z\\none\\n two\\n' >&2; exit 1"
    )
    done = executor.save(order(tmp_path))
    assert done == Result(False, "WARN:zonetwo", ("ERROR: save: x", "WARN: y"))
    script(executor, "save", "exit 3")
    assert executor.save(order(tmp_path)) == Result(False, "-", ())


@pytest.mark.parametrize("text", ["echo a; echo b", "echo 'a b'"])
def test_what_would_corrupt_the_protocol_is_an_error(executor: Executor, tmp_path: Path, text: str) -> None:
    """An action that prints too much would pass here, and break oned."""
    script(executor, "save", text)
    with pytest.raises(AssertionError, match="corrupts"):
        executor.save(order(tmp_path))


def test_a_deployment_needs_an_id(executor: Executor, tmp_path: Path) -> None:
    """A VM without a deploy id would count as running."""
    script(executor, "deploy", "echo ' '")
    with pytest.raises(AssertionError, match="Empty deploy ID"):
        executor.deploy(order(tmp_path), "<domain/>")


@pytest.mark.parametrize("mode", [None, 0o644])
def test_an_action_must_be_there_and_executable(executor: Executor, tmp_path: Path, mode: int | None) -> None:
    """A wrong mode would only be found on a real node."""
    if mode is not None:
        for name in ("save", "resize"):
            script(executor, name, "exit 0", mode)
    for call in (lambda: executor.save(order(tmp_path)), lambda: executor.resize(order(tmp_path), 1)):
        with pytest.raises(AssertionError, match="not executable"):
            call()


def test_a_failed_resize_is_taken_back(executor: Executor, tmp_path: Path) -> None:
    """The next action would be told a size that the VM does not have."""
    vm = order(tmp_path)
    script(executor, "resize", "exit 1")
    executor.resize(vm, 512)
    assert vm.memory_mib == 256
