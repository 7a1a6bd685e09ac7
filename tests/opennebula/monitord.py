"""A double of OpenNebula's monitoring: the client that runs probes on a node, and monitord that hears it.

Built from what the real ones do: argv, working directory, stdin, order of probes, what a failure means, the
first pass before the endless ones. A probe that hangs, which the real client waits for for ever, fails here.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.opennebula import wire
from tests.opennebula.host_record import HostRecord
from tests.opennebula.wire import Kind, Message

CATEGORIES: Mapping[str, Kind] = {
    "host/system": "SYSTEM_HOST",
    "host/monitor": "MONITOR_HOST",
    "vm/status": "STATE_VM",
    "vm/execution": "EXEC_VM",
    "vm/monitor": "MONITOR_VM",
    "vm/snapshot": "MONITOR_VM",
    "host/beacon": "BEACON_HOST",
}
START_LIMIT_S = 90.0
PROBE_LIMIT_S = 85.0

CONFIGURATION = (
    "<MONITOR_CONFIGURATION><DATASTORE_LOCATION><![CDATA[/var/lib/one//datastores]]></DATASTORE_LOCATION>"
    "<NETWORK><ADDRESS><![CDATA[0.0.0.0]]></ADDRESS><MONITOR_ADDRESS><![CDATA[127.0.0.1]]></MONITOR_ADDRESS>"
    "<PORT><![CDATA[{port}]]></PORT><PRIKEY></PRIKEY><PUBKEY></PUBKEY></NETWORK><PROBES_PERIOD>"
    "<BEACON_HOST><![CDATA[30]]></BEACON_HOST><EXEC_VM><![CDATA[5]]></EXEC_VM>"
    "<MONITOR_HOST><![CDATA[120]]></MONITOR_HOST><MONITOR_VM><![CDATA[30]]></MONITOR_VM>"
    "<STATE_VM><![CDATA[5]]></STATE_VM><SYNC_STATE_VM><![CDATA[180]]></SYNC_STATE_VM>"
    "<SYSTEM_HOST><![CDATA[600]]></SYSTEM_HOST></PROBES_PERIOD><HOST_ID>{host_id}</HOST_ID></MONITOR_CONFIGURATION>"
)


class StartFailedError(Exception):
    """START_MONITOR failed, which puts the host in ERROR."""


class Monitord:
    """Hears messages and keeps the records of hosts by id."""

    def __init__(self, hosts: Mapping[int, HostRecord]) -> None:
        self.hosts = dict(hosts)
        self.log: list[str] = []
        self._newest_s: dict[tuple[int, Kind], int] = {}

    def receive(self, received: bytes) -> None:
        """One datagram, or all of one TCP connection."""
        message = wire.decode(received)
        host = self.hosts.get(message.host_id) if message else None
        if message is None or host is None or host.state == "OFFLINE":
            self.log.append(f"ignored: {received[:60]!r}")
            return
        if not message.succeeded:
            self.log.append(f"{message.kind} failed: {message.text}")
            if message.kind in ("BEACON_HOST", "SYSTEM_HOST", "MONITOR_HOST"):
                host.fail(message.text)
            return
        if message.kind != "BEACON_HOST" and not self._is_in_order(message):
            self.log.append(f"out of order: {message.kind}")
            return
        take = {
            "SYSTEM_HOST": host.take_system,
            "MONITOR_HOST": host.take_monitor,
            "STATE_VM": host.take_vm_states,
            "MONITOR_VM": host.take_vm_monitor,
        }.get(message.kind)
        if take is not None:
            take(message.text)

    def _is_in_order(self, message: Message) -> bool:
        key = message.host_id, message.kind
        if message.epoch_s < self._newest_s.get(key, 0):
            return False
        self._newest_s[key] = message.epoch_s
        return True


class Client:
    """The monitoring client of one host on its node N."""

    def __init__(
        self,
        node: Path,
        monitord: Monitord,
        *,
        im_mad: str = "vmpack",
        host_id: int = 0,
        hostname: str = "node-1",
        environment: Mapping[str, str] | None = None,
        order: int = 1,
    ) -> None:
        self._node, self._monitord = node, monitord
        self._im_mad, self._host_id, self._hostname = im_mad, host_id, hostname
        self._environment = {"PATH": os.defpath, "LANG": "C", **(environment or {})}
        self._order = order
        """-1: probes run in the opposite order, for before 7.0 it may be any."""

    def start(self) -> None:
        """START_MONITOR: one pass of all but the beacon; its messages count too. Raises StartFailedError."""
        folder = self._node / f"im/{self._im_mad}.d"
        executable = [entry.name for entry in folder.iterdir() if os.access(entry, os.X_OK)]
        if executable != ["monitord-client_control.sh"]:
            raise StartFailedError(f"these are run on the node: {executable}")
        began_s = time.monotonic()
        messages = [self.run(category) for category in CATEGORIES if category != "host/beacon"]
        failed = [message for message in messages if not message.succeeded]
        if failed or time.monotonic() - began_s > START_LIMIT_S:
            self._monitord.hosts[self._host_id].fail(failed[0].text if failed else "took too long")
            raise StartFailedError(failed[0].text if failed else "took too long")
        for message in messages:
            self._monitord.receive(wire.encode(message))

    def turn(self, categories: Iterable[str] = tuple(CATEGORIES)) -> list[Message]:
        """One pass of each category, all at once as the client's threads do; each is sent. Raises OSError."""
        with ThreadPoolExecutor(len(CATEGORIES)) as threads:
            messages = list(threads.map(self.run, categories))
        for message in messages:
            if message.text.strip():
                self._monitord.receive(wire.encode(message))
        return messages

    def run(self, category: str) -> Message:
        """One pass of one category; raises StartFailedError where its directory is missing."""
        text, succeeded = "", True
        for probe in self._probes(category):
            done = self._execute(probe)
            text += done.stdout
            if done.returncode != 0:
                text, succeeded = f"Error executing {probe.name}: {done.stderr}", False
                break
        return Message(CATEGORIES[category], succeeded, self._host_id, int(time.time()), text)

    def _probes(self, category: str) -> list[Path]:
        folder = self._node / f"im/{self._im_mad}.d/../{self._im_mad}-probes.d" / category
        if not folder.is_dir():
            raise StartFailedError(f"No such file or directory @ dir_initialize - {folder}")
        entries = [entry for entry in folder.iterdir() if entry.is_file() and os.access(entry, os.X_OK)]
        return sorted(entries)[:: self._order]

    def _execute(self, probe: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(probe), self._im_mad, str(self._host_id), self._hostname],
            input=CONFIGURATION.format(port=4124, host_id=self._host_id) + "\n",
            cwd=self._node / f"im/{self._im_mad}.d",
            env=self._environment,
            capture_output=True,
            encoding="utf-8",
            timeout=PROBE_LIMIT_S,
            check=False,
        )
