"""Hosts as oned tells them, as the cloud protocol's records. Called by opennebula.py."""

from __future__ import annotations

from collections.abc import Mapping

from vmpack.clouds.opennebula_reserve import RESERVED, Reservation, reservation
from vmpack.clouds.opennebula_xml import ClusterXml, HostXml, Template
from vmpack.model.cluster import CloudHost, HostState
from vmpack.units import KIB

IM_MAD = "vmpack"
_STATES: dict[int, HostState] = {2: "up", 4: "disabled"}


def host_reservation(host: HostXml, clusters: Mapping[int, ClusterXml]) -> Reservation:
    """What is reserved on it, by its administrator and by us."""
    cluster = clusters.get(host.cluster_id)
    return reservation(
        host.template, Template() if cluster is None else cluster.template, host.total_bytes // KIB
    )


def cloud_host(host: HostXml, clusters: Mapping[int, ClusterXml]) -> CloudHost:
    """The host as a record."""
    found = host_reservation(host, clusters)
    return CloudHost(
        id=str(host.id),
        name=host.name,
        state=_STATES.get(host.state, "down"),
        cluster=host.cluster,
        managed=host.im_mad == IM_MAD,
        total_bytes=host.total_bytes,
        base_bytes=host.total_bytes - found.base_kib * KIB,
        promised_bytes=host.usage_bytes,
        granted_bytes=None if found.granted_kib is None else found.granted_kib * KIB,
        marked=found.marked,
        granted_s=found.changed_s,
        base_words=_words(found),
        domains=tuple(f"one-{number}" for number in host.vm_ids),
        fault=found.fault,
        notes=_notes(clusters.get(host.cluster_id)),
    )


def _notes(cluster: ClusterXml | None) -> tuple[str, ...]:
    if cluster is None or cluster.template.value("ONE_DRS", "AUTOMATION").strip().lower() != "full":
        return ()
    return (
        f"OneDRS moves VMs of the cluster {cluster.name} by itself (AUTOMATION=full): where a grant is "
        "lowered below what was placed, it drains the host; set it to partial or manual",
    )


def _words(found: Reservation) -> str:
    if found.own:
        return f"{RESERVED}={found.own}"
    return f"the cluster's {RESERVED}" if found.base_kib or found.fault else ""
