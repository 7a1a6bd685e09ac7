"""The double of oned does what the real one does, also where that surprises."""

from __future__ import annotations

import pytest

from tests.opennebula.oned import ADMIN, OWNER, Oned, Refusal
from tests.opennebula.oned_objects import OnedHost, OnedVm
from tests.opennebula.template import merge, parse
from vmpack.clouds.opennebula_xml import read_vm, read_vms

Pair = tuple[OnedHost, OnedHost]


@pytest.fixture
def hosts(oned: Oned) -> Pair:
    """Two hosts of 4 GiB."""
    return oned.add_host("node-a", 4096), oned.add_host("node-b", 4096)


@pytest.fixture
def vm(oned: Oned, hosts: Pair) -> OnedVm:
    """A VM of 1 GiB on the first."""
    return oned.add_vm("web", 1024, hosts[0])


def test_an_update_without_a_kind_replaces_all(oned: Oned, hosts: Pair) -> None:
    """The most dangerous default of the interface must be in the double, or nobody would notice its use."""
    oned.one_host_update(ADMIN, 0, 'RESERVED_MEM="1024"', 1)
    assert oned.told(hosts[0], "TOTALMEMORY") is not None

    oned.one_host_update(ADMIN, 0, 'A="1"')
    assert oned.told(hosts[0], "TOTALMEMORY") is None and oned.told(hosts[0], "RESERVED_MEM") is None


def test_a_short_pool_leaves_out_what_owners_wrote(oned: Oned, vm: OnedVm) -> None:
    """vmpack read through the wrong call would see no policy at all, and no error."""
    vm.user_template = merge([], parse('VMPACK_FLOOR="1"\nLABELS="x"'))

    (short,), _ = read_vms(oned.one_vmpool_info(ADMIN, -2, -1, -1, -1))
    (whole,), _ = read_vms(oned.one_vmpool_infoextended(ADMIN, -2, -1, -1, -1))
    assert set(short.user_template.values) == {"LABELS"}
    assert set(whole.user_template.values) == {"LABELS", "VMPACK_FLOOR"}


def test_both_hosts_are_charged_while_it_moves_and_one_afterwards(
    oned: Oned, vm: OnedVm, hosts: Pair
) -> None:
    """A grant made during a migration must see the room taken on both sides."""
    seen: list[tuple[int, int]] = []

    def journey(*_: object) -> bool:
        seen.append((hosts[0].record.usage_kib, hosts[1].record.usage_kib))
        return True

    oned.migrate_hook = journey
    oned.one_vm_migrate(ADMIN, vm.id, 1, True, True)
    oned.settle()

    assert seen == [(2**20, 2**20)]
    assert (hosts[0].record.usage_kib, hosts[1].record.usage_kib) == (0, 2**20)


@pytest.mark.parametrize(("well", "stays"), [(True, [0, 1]), (False, [0, 1, 0])])
def test_the_history_tells_what_came_of_it(
    well: bool, stays: list[int], oned: Oned, vm: OnedVm, hosts: Pair
) -> None:
    """One that failed shows only as one more record, of the old host."""
    oned.migrate_hook = lambda *_: well
    oned.one_vm_migrate(ADMIN, vm.id, 1, True, True)
    oned.settle()

    told = read_vm(oned.one_vm_info(ADMIN, vm.id))
    assert [stay.host_id for stay in told.history] == stays
    assert [stay.sequence for stay in told.history] == list(range(len(stays)))
    assert (told.state, told.lcm_state) == (3, 3)


def test_live_for_a_vm_that_does_not_run_is_cold(oned: Oned, vm: OnedVm, hosts: Pair) -> None:
    """The trap that vmpack must not step into has to be there."""
    vm.lcm_state = 16
    oned.one_vm_migrate(ADMIN, vm.id, 1, True, True)
    oned.settle()

    assert oned.cold_migrations == [vm.id]


def test_only_enforce_looks_at_the_room(oned: Oned, vm: OnedVm, hosts: Pair) -> None:
    """Without it a host is filled beyond its capacity."""
    oned.add_vm("large", 3584, hosts[1])

    with pytest.raises(Refusal, match="Not enough memory: 1048576/524288"):
        oned.one_vm_migrate(ADMIN, vm.id, 1, True, True)
    oned.one_vm_migrate(ADMIN, vm.id, 1, True)
    oned.settle()
    assert hosts[1].record.usage_kib > hosts[1].record.max_kib


def test_an_owner_may_not_do_an_administrators_work(oned: Oned, vm: OnedVm, hosts: Pair) -> None:
    """Rights that the double does not ask for would be missed at the first real cloud."""
    vm.uid = 5
    assert oned.one_vm_update(OWNER, vm.id, 'A="1"', 1) == vm.id
    for refused in (
        lambda: oned.one_host_update(OWNER, 0, 'A="1"', 1),
        lambda: oned.one_vm_migrate(OWNER, vm.id, 1, True, True),
    ):
        with pytest.raises(Refusal, match="Not authorized"):
            refused()
