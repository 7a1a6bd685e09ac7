"""OpenNebula as a Cloud (see cloud.py). Called by the commands; asks oned by XML-RPC, as an administrator.

Nothing is written that was not looked at right before; templates are appended to (type 1), never replaced.
"""

from __future__ import annotations

from collections.abc import Mapping

from vmpack.clock import Clock
from vmpack.clouds import opennebula_migration as migration
from vmpack.clouds.opennebula_client import OpenNebulaClient
from vmpack.clouds.opennebula_hosts import cloud_host, host_reservation
from vmpack.clouds.opennebula_policy import applied_texts
from vmpack.clouds.opennebula_reserve import written
from vmpack.clouds.opennebula_text import template_text
from vmpack.clouds.opennebula_vms import cloud_vm, is_running, state_name
from vmpack.clouds.opennebula_xml import (
    ClusterXml,
    HostXml,
    VmXml,
    read_clusters,
    read_host,
    read_hosts,
    read_monitoring,
    read_vm,
    read_vms,
)
from vmpack.errors import CloudChangedError, CloudError
from vmpack.model.cluster import Applied, CloudHost, CloudVm, MoveState, MoveTicket
from vmpack.units import KIB

APPEND = 1
ALL_VMS = (-2, -1, -1, -1)
"""Of every owner, from first to last, not DONE."""
NEWEST = 0


class OpenNebula:
    """One oned, behind the Cloud protocol."""

    def __init__(self, client: OpenNebulaClient, clock: Clock, shares_max: int) -> None:
        self._client = client
        self._clock = clock
        self._shares_max = shares_max

    @property
    def name(self) -> str:
        """See Cloud."""
        return f"OpenNebula at {self._client.endpoint}"

    def hosts(self) -> tuple[tuple[CloudHost, ...], tuple[str, ...]]:
        """See Cloud."""
        clusters = self._clusters()
        found, faults = read_hosts(self._client.text("hostpool.info"))
        hosts = [cloud_host(host, clusters) for host in found]
        return tuple(sorted(hosts, key=lambda host: (host.name, int(host.id)))), faults

    def vms(self) -> tuple[tuple[CloudVm, ...], tuple[str, ...]]:
        """See Cloud."""
        found, faults = read_vms(self._client.text("vmpool.infoextended", *ALL_VMS))
        # Pools leave out what was measured, and pyone's records what their schema does not name.
        measured = read_monitoring(self._client.text("vmpool.monitoring", ALL_VMS[0], NEWEST))
        now_s, none = self._clock.wall_s(), dict[str, str]()
        vms = (
            cloud_vm(vm, measured.get(vm.id, none), now_s, self._shares_max)
            for vm in sorted(found, key=lambda vm: vm.id)
        )
        return tuple(vms), faults

    def grant(self, host: CloudHost, granted_bytes: int) -> None:
        """See Cloud."""
        clusters, now = self._clusters(), self._host(host.id)
        seen = cloud_host(now, clusters)
        changed = (seen.base_bytes, seen.granted_bytes) != (host.base_bytes, host.granted_bytes)
        if changed or (seen.fault and granted_bytes):
            raise CloudChangedError(
                f"the reservation of {host.name} was changed meanwhile, to {seen.base_words or 'none'}",
                "run it again: it goes by what is there then",
            )
        values = written(host_reservation(now, clusters), granted_bytes // KIB, self._clock.wall_s())
        self._client.number("host.update", int(host.id), template_text(values), APPEND)

    def untold(self, vm: CloudVm, applied: Applied) -> Mapping[str, str]:
        """See Cloud."""
        known = dict(vm.told)
        return {name: text for name, text in applied_texts(applied).items() if known.get(name, "") != text}

    def tell_owner(self, vm: CloudVm, values: Mapping[str, str | None]) -> None:
        """See Cloud."""
        self._client.number("vm.update", int(vm.id), template_text(values), APPEND)

    def refusals(self, vm: CloudVm, host: CloudHost) -> tuple[str, ...]:
        """See Cloud."""
        return migration.refusals(self._vm(vm.id), self._host(host.id))

    def migrate(self, vm: CloudVm, host: CloudHost) -> MoveTicket:
        """See Cloud."""
        now = self._vm(vm.id)
        if not is_running(now):
            raise CloudChangedError(
                f"it is {state_name(now)} now, and OpenNebula would move it cold", "try again when it runs"
            )
        self._client.number("vm.migrate", int(vm.id), int(host.id), True, True)
        return MoveTicket(vm, host, migration.mark(now))

    def move(self, ticket: MoveTicket) -> MoveState:
        """See Cloud."""
        return migration.judge(self._vm(ticket.vm.id), ticket)

    def stop_move(self, ticket: MoveTicket) -> bool:
        """See Cloud: oned has no call that ends a live migration and leaves the VM running."""
        return False

    def _vm(self, number: str) -> VmXml:
        return read_vm(self._client.text("vm.info", int(number)))

    def _host(self, number: str) -> HostXml:
        return read_host(self._client.text("host.info", int(number)))

    def _clusters(self) -> Mapping[int, ClusterXml]:
        found, faults = read_clusters(self._client.text("clusterpool.info"))
        # A host of a cluster that cannot be read would be granted on a guess.
        if faults:
            raise CloudError(f"a cluster cannot be read: {faults[0]}", "`onecluster list -x` shows it")
        return {cluster.id: cluster for cluster in found}
