"""OpenNebula's XML as records: what is read, what is refused."""

from __future__ import annotations

import pytest

from vmpack.clouds.opennebula_xml import read_action, read_host, read_hosts, read_vm, read_vms
from vmpack.errors import CloudError
from vmpack.units import KIB, MIB

VM = """<VM><ID>7</ID><NAME>web &amp; db</NAME><STATE>3</STATE><LCM_STATE>3</LCM_STATE>
<DEPLOY_ID>5a0c7f3e-0000-4000-8000-000000000007</DEPLOY_ID>
<TEMPLATE><MEMORY><![CDATA[1024]]></MEMORY><VCPU>2</VCPU>
<TOPOLOGY><CORES>1</CORES></TOPOLOGY><NIC><NIC_ID>0</NIC_ID></NIC><NIC><NIC_ID>1</NIC_ID></NIC></TEMPLATE>
<USER_TEMPLATE><VMPACK_SHARES><![CDATA[2000]]></VMPACK_SHARES><STATE>9</STATE></USER_TEMPLATE>
<HISTORY_RECORDS><HISTORY><OID>7</OID><SEQ>1</SEQ><HOSTNAME>node-b</HOSTNAME><HID>4</HID><VM_MAD>vmpack</VM_MAD>
</HISTORY><HISTORY><SEQ>0</SEQ><HOSTNAME>node-a</HOSTNAME><HID>3</HID><VM_MAD>kvm</VM_MAD></HISTORY>
</HISTORY_RECORDS></VM>"""

HOST = """<HOST><ID>3</ID><NAME>node-a</NAME><STATE>2</STATE><IM_MAD>vmpack</IM_MAD><VM_MAD>vmpack</VM_MAD>
<CLUSTER_ID>0</CLUSTER_ID><CLUSTER>default</CLUSTER><HOST_SHARE><MEM_USAGE>1048576</MEM_USAGE>
<TOTAL_MEM>8388608</TOTAL_MEM><MAX_MEM>9437184</MAX_MEM></HOST_SHARE><VMS><ID>7</ID></VMS>
<TEMPLATE><RESERVED_MEM><![CDATA[-1048576]]></RESERVED_MEM></TEMPLATE></HOST>"""


def test_a_vm_is_read() -> None:
    """Else an owner's memory and settings would be unknown to vmpack."""
    vm = read_vm(VM)
    assert (vm.id, vm.name, vm.state, vm.lcm_state) == (7, "web & db", 3, 3)
    assert (vm.memory_bytes, vm.vcpus) == (1024 * MIB, 2)
    assert vm.template.value("TOPOLOGY", "CORES") == "1"
    assert [nic["NIC_ID"] for nic in vm.template.vectors["NIC"]] == ["0", "1"]
    assert vm.user_template.values["VMPACK_SHARES"] == "2000"
    assert [(stay.sequence, stay.host_id) for stay in vm.history] == [(0, 3), (1, 4)]
    assert vm.host_name == "node-b"


def test_an_owner_cannot_write_the_vms_own_fields() -> None:
    """An owner could otherwise set his VM's state or memory by writing it into his USER_TEMPLATE."""
    vm = read_vm(
        VM.replace("<STATE>3</STATE>", "", 1).replace("<USER_TEMPLATE>", "<STATE>3</STATE><USER_TEMPLATE>")
    )
    assert vm.state == 3
    with pytest.raises(CloudError, match="STATE is ''"):
        read_vm(VM.replace("<STATE>3</STATE>", "", 1))


def test_a_host_is_read() -> None:
    """Else grants would be reckoned from wrong capacities."""
    host = read_host(HOST)
    assert (host.id, host.name, host.state, host.cluster_id, host.cluster) == (3, "node-a", 2, 0, "default")
    assert (host.total_bytes, host.max_bytes, host.usage_bytes) == (
        8388608 * KIB,
        9437184 * KIB,
        1048576 * KIB,
    )
    assert host.vm_ids == (7,)
    assert host.template.values["RESERVED_MEM"] == "-1048576"


def test_what_the_administrator_over_reserved_is_read() -> None:
    """A host that reserves more than it has would else vanish from vmpack."""
    assert read_host(HOST.replace("9437184", "-5")).max_bytes == -5 * KIB


def test_one_broken_vm_costs_no_other() -> None:
    """One odd record would else hide the whole pool."""
    vms, faults = read_vms(f"<VM_POOL>{VM}<VM><ID>8</ID></VM></VM_POOL>")
    assert [vm.id for vm in vms] == [7]
    assert faults == ("VM 8: STATE is '', expected a whole number",)
    hosts, faults = read_hosts(f"<HOST_POOL><HOST><ID>1</ID></HOST>{HOST}</HOST_POOL>")
    assert [host.id for host in hosts] == [3]
    assert faults == ("HOST 1: HOST_SHARE is missing",)


def test_an_action_is_read() -> None:
    """Else resize would not know what the owner pays for now."""
    action = read_action(
        "<VMM_DRIVER_ACTION_DATA><HOST><![CDATA[a]]></HOST><MIGR_HOST>b</MIGR_HOST>"
        f"{VM}</VMM_DRIVER_ACTION_DATA>"
    )
    assert (action.vm.id, action.host_name, action.destination_name) == (7, "a", "b")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<VM>",
        "<HOST/>",
        "<VM/>",
        VM + "x",
        VM.replace("1024", "1e3"),
        VM.replace("1024", "inf"),
        VM.replace("1024", "-1"),
        VM.replace("1024", "9" * 5000),
        VM.replace("1024", "٣"),
        '<!DOCTYPE VM [<!ENTITY a "b">]>' + VM,
        '<!DOCTYPE VM SYSTEM "file:///etc/passwd">' + VM,
        "<VM>" + " " * (4 * 2**20) + "</VM>",
    ],
    ids=lambda text: text[:24],
)
def test_what_is_not_a_vm_is_refused(text: str) -> None:
    """A bomb, an entity or an impossible number would else reach what acts on VMs."""
    with pytest.raises(CloudError, match="the XML of a VM cannot be used"):
        read_vm(text)
