"""install.sh opennebula --node: the agent on a node, and who may speak to it."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from tests.unit.install_machine import Machine, debian_machine, installed_release

GROUP = 'test "$1 $2" = "group oneadmin" && echo oneadmin:x:9869:'


@pytest.fixture
def node(tmp_path: Path) -> Machine:
    """A node with the group oneadmin; vmpack's own program is a fake."""
    machine = debian_machine(tmp_path)
    machine.has("getent", GROUP)
    installed_release(machine, str(tmp_path / "prefix"), command="opennebula --node")
    return machine


def install(node: Machine, *arguments: str) -> tuple[int, str]:
    """Exit code and all that was said."""
    done = node.install("opennebula", "--node", "--prefix", str(node.base / "prefix"), *arguments)
    return done.returncode, done.stdout + done.stderr


def test_oneadmin_may_change_what_the_agent_does(node: Machine) -> None:
    """OpenNebula's actions and `vmpack grant` would be refused by the agent on every node."""
    code, said = install(node)
    assert code == 0, said
    access = tomllib.loads((node.base / "prefix/etc/vmpack/conf.d/50-opennebula.toml").read_text())
    assert access == {"agent": {"socket_group": "oneadmin", "socket_group_may_change": True}}
    assert (node.base / "prefix/lib/systemd/system/vmpack-agent.service").exists()


def test_an_administrators_own_rights_are_kept(node: Machine) -> None:
    """A right that was taken away would come back with the next update."""
    own = node.base / "prefix/etc/vmpack/conf.d/50-opennebula.toml"
    own.parent.mkdir(parents=True)
    own.write_text('[agent]\nsocket_group = "wheel"\n')
    assert install(node)[0] == 0
    assert "wheel" in own.read_text()


def test_uninstall_takes_the_right_back_and_says_what_is_left_to_do(node: Machine) -> None:
    """oneadmin would keep a right, and the scheduler would go on to fill memory that nobody packs."""
    install(node)
    done = node.install("uninstall", "--prefix", str(node.base / "prefix"))
    assert done.returncode == 0, done.stderr
    assert not (node.base / "prefix/etc/vmpack/conf.d").exists()
    assert "vmpack grant" in done.stdout.splitlines()[-2] and "--off" in done.stdout.splitlines()[-2]


def test_uninstall_leaves_an_administrators_own_file(node: Machine) -> None:
    """What he wrote himself is not ours to remove."""
    own = node.base / "prefix/etc/vmpack/conf.d/50-opennebula.toml"
    own.parent.mkdir(parents=True)
    own.write_text('[agent]\nsocket_group = "wheel"\n')
    install(node)
    assert node.install("uninstall", "--prefix", str(node.base / "prefix")).returncode == 0
    assert "wheel" in own.read_text()


def test_nothing_is_started_unasked(node: Machine) -> None:
    """A node would be packed before anybody looked at what would be done."""
    node.has("systemctl", "exit 0")
    assert install(node)[0] == 0
    assert all("is-active" in call for call in node.calls("systemctl"))


def test_a_running_agent_must_be_started_anew_and_that_is_said(node: Machine) -> None:
    """Every action of OpenNebula would be refused by an agent that was there before, and nobody know why."""
    node.has("systemctl", "exit 0")
    code, said = install(node)
    assert code == 0 and "does not let oneadmin in yet: systemctl restart vmpack-agent" in said
    assert "oneadmin in yet" not in install(node)[1]
    node.has("systemctl", "exit 3")
    (node.base / "prefix/etc/vmpack/conf.d/50-opennebula.toml").unlink()
    assert "oneadmin in yet" not in install(node)[1]


def test_enable_starts_it(node: Machine) -> None:
    """The service would have to be enabled by hand on each of many nodes."""
    node.has("systemctl", "exit 3")
    code, said = install(node, "--enable", "--dry-run")
    assert code == 0 and "enable --now vmpack-agent" in said


def test_a_machine_that_is_no_node_is_refused(node: Machine) -> None:
    """The agent would not start, because the group that it names is not there."""
    node.has("getent", "exit 2")
    before = node.files()
    code, said = install(node)
    assert code == 69 and "no group oneadmin" in said
    assert node.files() == before
    assert "vmpack doctor" not in said
