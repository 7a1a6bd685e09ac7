"""install.sh uninstall on a double of a front-end: what it refuses, what it takes away, what it leaves."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.opennebula.front_end import FrontEnd, front_end, program_does


@pytest.fixture
def place(tmp_path: Path) -> FrontEnd:
    """A front-end where everything was installed and registered; its untouched tree is in `.before`."""
    made = front_end(tmp_path)
    before = made.tree()
    made.install("--edit", "--no-sync")
    made.before = before  # type: ignore[attr-defined]
    return made


def test_what_was_put_there_goes_and_all_else_is_as_before(place: FrontEnd) -> None:
    """A front-end would keep litter, or lose files of OpenNebula's."""
    code, said = place.run("uninstall")
    assert code == 0, said
    assert place.tree() == place.before  # type: ignore[attr-defined]
    assert not (place.prefix / "lib/vmpack").exists()
    assert not (place.remotes / "vmm/vmpack").exists()
    assert "systemctl restart opennebula" in said
    assert place.machine.calls("onehost")[-1] == "onehost sync -f"


def test_an_administrators_later_changes_and_files_stay(place: FrontEnd) -> None:
    """What was configured after the installation would be undone with it."""
    with (place.etc / "oned.conf").open("a") as file:
        file.write('PORT = "2633"\n')
    own = place.remotes / "vmm/vmpack/mine"
    own.write_text("mine")
    code, said = place.run("uninstall")
    assert code == 0, said
    assert (place.etc / "oned.conf").read_text().endswith('TYPE = "kvm" ]\nPORT = "2633"\n')
    assert list(place.etc.glob("oned.conf.before-vmpack-*"))
    assert own.read_text() == "mine"


@pytest.mark.parametrize(
    ("hosts", "vms"),
    [
        ([("a", "vmpack", "vmpack")], []),
        ([("a", "vmpack", "kvm")], []),
        ([("a", "kvm", "kvm")], [("3", "vmpack")]),
        ([("a", "kvm", "kvm")], [("8", "vmpack")]),
    ],
    ids=["host with both", "host monitored by us", "running VM", "powered-off VM"],
)
def test_it_refuses_while_anything_uses_the_drivers(
    place: FrontEnd, hosts: list[tuple[str, str, str]], vms: list[tuple[str, str]]
) -> None:
    """VMs could be neither stopped nor moved any more, and hosts would never be monitored again."""
    place.hosts(*hosts)
    place.vms(*vms)
    before = place.tree()
    for dry in ((), ("--dry-run",)):
        code, said = place.run("uninstall", *dry)
        assert code == 75 and "--convert" in said, said
        assert place.tree() == before
        assert (place.prefix / "bin/vmpack").exists()


def test_vms_that_are_deployed_anew_anyway_do_not_hold_it_up(place: FrontEnd) -> None:
    """A VM that was undeployed years ago would keep vmpack installed for ever."""
    place.vms(("9", "vmpack"), ("4", "vmpack"), ("3", "kvm"))
    assert place.run("uninstall")[0] == 0


def test_it_refuses_when_opennebula_cannot_be_asked(place: FrontEnd) -> None:
    """Drivers in use would be removed, because nobody was there to say so."""
    (place.one / "hosts.xml").unlink()
    before = place.tree()
    code, said = place.run("uninstall")
    assert code == 75 and "--keep-packed" in said
    assert place.tree() == before
    assert place.run("uninstall", "--keep-packed")[0] == 0


def test_an_opennebula_that_was_removed_first_is_no_hindrance(place: FrontEnd) -> None:
    """vmpack could not be removed from a machine that is no front-end any more."""
    for tree in (place.one / "var", place.one / "etc"):
        for path in sorted(tree.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
        tree.rmdir()
    code, said = place.run("uninstall")
    assert code == 0, said
    assert not (place.prefix / "lib/vmpack").exists()


def test_convert_gives_hosts_back_first(place: FrontEnd) -> None:
    """Hosts would be left with drivers that are gone."""
    place.hosts(("node-a", "vmpack", "vmpack"), ("node-b", "kvm", "kvm"), granted=True)
    code, said = place.run("uninstall", "--convert")
    assert code == 0, said
    calls = [call for call in place.machine.calls("vmpack") if "convert" in call or "grant" in call]
    config = f"--config {place.prefix}/etc/vmpack/vmpack.toml"
    assert calls == [f"vmpack grant --off {config}", f"vmpack opennebula convert node-a --back {config}"]


def test_marks_of_an_overwritten_grant_are_cleared(place: FrontEnd) -> None:
    """They would stand in the host's template for ever."""
    marks = "<VMPACK_RESERVED_SET>-5</VMPACK_RESERVED_SET><RESERVED_MEM>7</RESERVED_MEM>"
    body = f"<IM_MAD>kvm</IM_MAD><VM_MAD>kvm</VM_MAD><TEMPLATE>{marks}</TEMPLATE>"
    place.answers("hosts", f"<HOST_POOL><HOST><ID>0</ID><NAME>a</NAME>{body}</HOST></HOST_POOL>")
    code, said = place.run("uninstall")
    assert code == 0, said
    assert [call for call in place.machine.calls("vmpack") if " --off" in call]


def test_the_timer_goes_too(place: FrontEnd) -> None:
    """systemd would try to run a program that is gone, every minute."""
    units = place.prefix / "lib/systemd/system"
    assert list(units.glob("vmpack-grant.*"))
    assert place.run("uninstall")[0] == 0
    assert not list(units.glob("vmpack-*"))


def test_a_front_end_that_is_a_node_too_loses_all_of_it(place: FrontEnd) -> None:
    """What one installation noted, the other would forget."""
    place.machine.has("getent", "exit 0")
    for _ in range(2):
        assert place.install("--node")[0] == 0
        assert place.install("--no-sync")[0] == 0
    units = place.prefix / "lib/systemd/system"
    assert len(list(units.glob("vmpack-*"))) == 4
    assert place.run("uninstall")[0] == 0
    assert not list(units.glob("vmpack-*"))
    assert not (place.prefix / "etc/vmpack/conf.d").exists()


def test_a_failing_conversion_stops_it(place: FrontEnd) -> None:
    """The drivers would be removed under a host that still has them."""
    place.hosts(("node-a", "vmpack", "vmpack"))
    program_does(place, 'test "$1" != opennebula')
    before = place.tree()
    assert place.run("uninstall", "--convert")[0] == 1
    assert place.tree() == before


def test_vms_that_go_by_our_drivers_name_keep_working_with_stock_scripts(place: FrontEnd) -> None:
    """Running VMs could not be stopped or moved: oned looks their driver up by the name in their record."""
    place.hosts(("node-a", "vmpack", "vmpack"))
    place.vms(("3", "vmpack"), ("3", "kvm"))
    code, said = place.run("uninstall", "--convert")
    assert code == 3 and "run uninstall again" in said, said
    folder = place.remotes / "vmm/vmpack"
    stock = {path.name for path in (place.remotes / "vmm/kvm").iterdir()}
    assert {path.name for path in folder.iterdir()} == stock
    assert all(path.is_symlink() and path.exists() for path in folder.iterdir())
    assert ">>> vmpack" in (place.etc / "oned.conf").read_text()
    assert place.machine.calls("onehost")[-1] == "onehost sync -f"
    place.hosts(("node-a", "kvm", "kvm"))
    place.vms(("3", "kvm"))
    assert place.run("uninstall")[0] == 0
    assert place.tree() == place.before  # type: ignore[attr-defined]


def test_a_host_without_our_drivers_is_not_asked_for_opennebula(tmp_path: Path) -> None:
    """Removing an agent from a host would ask an OpenNebula that is not there."""
    place = front_end(tmp_path)
    (place.machine.base / "calls").unlink()
    place.machine.install("agent", "--prefix", str(place.prefix))
    assert place.run("uninstall")[0] == 0
    assert not place.machine.calls("onehost")
