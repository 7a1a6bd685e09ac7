"""A double of oned: the XML-RPC calls that vmpack makes, answered and refused as OpenNebula 6.8 to 7.4 does.

Its VMs live nowhere unless hooks give them a place: `deploy(vm, host)` and `migrate(vm, source, destination)`
run in a thread of the call and say whether it went well, as the executor of drivers does.
"""

from __future__ import annotations

import re
import threading
import time
import xmlrpc.client
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from socketserver import ThreadingMixIn
from typing import Any
from xmlrpc.server import SimpleXMLRPCRequestHandler, SimpleXMLRPCServer

from tests.opennebula import oned_objects as objects
from tests.opennebula.oned_objects import ACTIVE, DONE, RUNNING, Cluster, OnedHost, OnedVm
from tests.opennebula.template import BadTemplateError, first, merge, parse, vectors

AUTHENTICATION, AUTHORIZATION, NO_EXISTS, ACTION, API, INTERNAL = 0x100, 0x200, 0x400, 0x800, 0x1000, 0x2000
MANAGE, ADMINISTER = 2, 4
ADMIN = "oneadmin:the-secret"
OWNER = "owner:owners-secret"
"""May see VMs, and update his own."""

DeployHook = Callable[[OnedVm, OnedHost], bool]
MigrateHook = Callable[[OnedVm, OnedHost, OnedHost], bool]


class Refusal(Exception):
    """oned says no."""

    def __init__(self, code: int, message: str, object_id: int = -1) -> None:
        super().__init__(message)
        self.code, self.object_id = code, object_id


class Oned:
    """One oned with its hosts, VMs and clusters."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.clusters = {0: Cluster(0, "default")}
        self.hosts: dict[int, OnedHost] = {}
        self.vms: dict[int, OnedVm] = {}
        self.calls: list[tuple[Any, ...]] = []
        """Method and arguments without the session."""
        self.cold_migrations: list[int] = []
        self.deploy_hook: DeployHook = lambda _vm, _host: True
        self.migrate_hook: MigrateHook = lambda _vm, _source, _destination: True
        self.success_length, self.failure_length = 6, 6
        """How many elements an answer has; old releases and other doubles give 3 and 5."""
        self.raw: dict[str, Any] = {}
        """Answers given instead, by method: odd ones."""
        self.before: dict[str, Callable[[], None]] = {}
        """Called before a method: somebody else comes first, or it takes its time."""
        self.http: bytes | None = None
        """Bytes sent instead of an HTTP answer."""
        self.threads: list[threading.Thread] = []

    def add_host(self, name: str, total_mib: int, text: str = "", **more: Any) -> OnedHost:
        """A monitored host."""
        host = objects.new_host(len(self.hosts), name, total_mib, text, **more)
        self.hosts[host.id] = host
        objects.recompute(host, self.clusters)
        return host

    def add_vm(self, name: str, memory_mib: int, host: OnedHost | None, text: str = "") -> OnedVm:
        """A VM; with a host one that runs there."""
        template = parse(f'CPU="1"\nMEMORY="{memory_mib}"\nVCPU="1"\n{text}')
        vm = OnedVm(len(self.vms) + 10, name, template)
        self.vms[vm.id] = vm
        if host is not None:
            vm.move(host)
            host.record.vms[vm.id] = vm.record()
            vm.state, vm.lcm_state = ACTIVE, RUNNING
        return vm

    def schedule(self, vm: OnedVm) -> OnedHost | None:
        """What the scheduler does with a pending VM: the first host with room for it."""
        for host in self.hosts.values():
            if host.record.state == "MONITORED" and host.record.fits(vm.memory_mib, vm.cpu_pct):
                self.one_vm_deploy(ADMIN, vm.id, host.id, True)
                return host
        return None

    def settle(self) -> None:
        """Wait until all that was begun has ended."""
        for thread in self.threads:
            thread.join(60)
            assert not thread.is_alive(), "a driver action of the double hangs"

    def told(self, host: OnedHost, name: str) -> str | None:
        """A value of the host's template."""
        return host.record.told(name)

    def answer(self, method: str, arguments: tuple[Any, ...]) -> Any:
        """One call, as its array."""
        if method in self.before:
            self.before[method]()
        if method in self.raw:
            return self.raw[method]
        call = getattr(self, method.replace(".", "_"), None)
        if not method.startswith("one.") or call is None:
            raise xmlrpc.client.Fault(-506, f"Method '{method}' not defined")
        with self.lock:
            self.calls.append((method.removeprefix("one."), *arguments[1:]))
            try:
                self._known(arguments)
                value = call(*arguments)
            except Refusal as refusal:
                array = [False, f"[{method}] {refusal}", refusal.code, refusal.object_id, 0, -1]
                return array[: self.failure_length]
        return [True, value, 0, -1, 0, -1][: self.success_length]

    def one_hostpool_info(self, _session: str) -> str:
        return _pool("HOST_POOL", (objects.host_xml(host, self.clusters) for host in self.hosts.values()))

    def one_host_info(self, _session: str, number: int, _decrypt: bool = False) -> str:
        return objects.host_xml(self._host(number), self.clusters)

    def one_host_update(self, session: str, number: int, text: str, kind: int = 0) -> int:
        self._admin(session)
        host = self._host(number)
        given = _parsed(text)
        # The default replaces all that was there, also what probes told.
        host.record.template = merge(host.record.template, given) if kind == 1 else given
        host.im_mad = first(given, "IM_MAD") or host.im_mad
        host.vm_mad = first(given, "VM_MAD") or host.vm_mad
        objects.recompute(host, self.clusters)
        return number

    def one_host_status(self, session: str, number: int, status: int) -> int:
        self._admin(session)
        record = self._host(number).record
        if status == 2:
            record.offline()
        else:
            record.state = "DISABLED" if status == 1 else "INIT" if record.state == "OFFLINE" else "MONITORED"
        return number

    def one_clusterpool_info(self, _session: str) -> str:
        return _pool("CLUSTER_POOL", map(objects.cluster_xml, self.clusters.values()))

    def one_vmpool_info(self, session: str, *window: int) -> str:
        return _pool("VM_POOL", (objects.vm_xml(vm, whole=False) for vm in self._listed(session, *window)))

    def one_vmpool_infoextended(self, session: str, *window: int) -> str:
        return _pool("VM_POOL", map(objects.vm_xml, self._listed(session, *window)))

    def one_vmpool_monitoring(self, session: str, filter_flag: int, _seconds: int = -1) -> str:
        return objects.monitoring_xml(self._listed(session, filter_flag, -1, -1, -1), int(time.time()))

    def one_vm_info(self, session: str, number: int, _decrypt: bool = False) -> str:
        return objects.vm_xml(self._vm(session, number), all_stays=True)

    def one_vm_update(self, session: str, number: int, text: str, kind: int) -> int:
        vm = self._vm(session, number)
        self._not_locked(vm, MANAGE)
        given = _parsed(text)
        vm.user_template = merge(vm.user_template, given) if kind == 1 else given
        return number

    def one_vm_allocate(self, _session: str, text: str, _hold: bool = False) -> int:
        given = _parsed(text)
        vm = self.add_vm(first(given, "NAME") or f"one-{len(self.vms)}", 0, None)
        vm.template = given
        return vm.id

    def one_vm_action(self, session: str, action: str, number: int) -> int:
        vm = self._vm(session, number)
        self._not_locked(vm, ADMINISTER if action.startswith("terminate") else MANAGE)
        if action not in ("terminate", "terminate-hard", "poweroff", "poweroff-hard"):
            raise Refusal(ACTION, f"Wrong action: {action}", number)
        self.hosts[vm.stays[-1].host_id].record.vms.pop(vm.id, None)
        vm.state, vm.lcm_state = (DONE if action.startswith("terminate") else objects.POWEROFF), 0
        return number

    def one_vm_deploy(self, session: str, number: int, host_id: int, enforce: bool = False) -> int:
        self._admin(session)
        vm, host = self._vm(session, number), self._host(host_id)
        self._not_locked(vm, ADMINISTER)
        self._fits(vm, host, enforce)
        vm.move(host)
        host.record.vms[vm.id] = vm.record()
        vm.state, vm.lcm_state = ACTIVE, objects.BOOT
        self._begin(lambda: self._deployed(vm, self.deploy_hook(vm, host)))
        return number

    def one_vm_migrate(
        self,
        session: str,
        number: int,
        host_id: int,
        live: bool,
        enforce: bool = False,
        _datastore: int = -1,
        kind: int = 0,
    ) -> int:
        host = self._host(host_id)
        self._admin(session)
        vm = self._vm(session, number)
        source = self._refuse_migration(vm, host, live, enforce, kind)
        vm.move(host)
        host.record.vms[vm.id] = vm.record()
        if live and vm.running:
            vm.lcm_state = objects.MIGRATE
        else:
            self.cold_migrations.append(vm.id)
            vm.state, vm.lcm_state = ACTIVE, objects.PROLOG_MIGRATE
        self._begin(lambda: self._migrated(vm, source, host, self.migrate_hook(vm, source, host)))
        return number

    def _refuse_migration(self, vm: OnedVm, host: OnedHost, live: bool, enforce: bool, kind: int) -> OnedHost:
        self._not_locked(vm, ADMINISTER)
        movable = vm.state in (objects.POWEROFF, objects.SUSPENDED) or (
            vm.state == ACTIVE and vm.lcm_state in (RUNNING, objects.UNKNOWN)
        )
        if not movable:
            raise Refusal(ACTION, "Migrate action is not available for this state", vm.id)
        topology = vectors(vm.template, "TOPOLOGY")
        if live and topology and topology[0].get("PIN_POLICY", "NONE").upper() != "NONE":
            raise Refusal(ACTION, "VM with a pinned NUMA topology cannot be live-migrated", vm.id)
        if live and any(disk.get("TYPE") == "FILESYSTEM" for disk in vectors(vm.template, "DISK")):
            raise Refusal(ACTION, "VM with FILESYSTEM disks cannot be live-migrated", vm.id)
        source = self.hosts[vm.stays[-1].host_id]
        if source is host:
            raise Refusal(ACTION, f"VM is already running on host [{host.id}]", vm.id)
        self._fits(vm, host, enforce)
        if vectors(vm.template, "PCI") and not kind and vm.state != objects.POWEROFF:
            raise Refusal(ACTION, f"Cannot migrate VM [{vm.id}], it has PCI devices", vm.id)
        clusters = re.findall(r"CLUSTER_ID = (\d+)", first(vm.template, "AUTOMATIC_REQUIREMENTS") or "")
        if clusters and str(host.cluster_id) not in clusters:
            raise Refusal(
                ACTION, f"Cannot migrate VM [{vm.id}]. Host is in cluster [{host.cluster_id}]", vm.id
            )
        return source

    def _deployed(self, vm: OnedVm, well: bool) -> None:
        with self.lock:
            vm.lcm_state = RUNNING if well else 36

    def _migrated(self, vm: OnedVm, source: OnedHost, host: OnedHost, well: bool) -> None:
        """A migration that failed goes back to RUNNING, with one more history record, on the old host."""
        with self.lock:
            if vm.state == DONE:
                return
            vm.stays[-2].ended = True
            if well:
                source.record.vms.pop(vm.id, None)
            else:
                vm.stays[-1].ended = True
                host.record.vms.pop(vm.id, None)
                vm.move(source)
            vm.lcm_state = RUNNING

    def _begin(self, action: Callable[[], None]) -> None:
        thread = threading.Thread(target=action, daemon=True)
        self.threads.append(thread)
        thread.start()

    def _fits(self, vm: OnedVm, host: OnedHost, enforce: bool) -> None:
        if enforce and not host.record.fits(0, vm.cpu_pct):
            free_pct = host.record.max_cpu_pct - host.record.cpu_usage_pct
            raise Refusal(ACTION, f"Not enough CPU: {vm.cpu_pct}/{free_pct}", vm.id)
        if enforce and not host.record.fits(vm.memory_mib):
            free_kib = host.record.max_kib - host.record.usage_kib
            raise Refusal(ACTION, f"Not enough memory: {vm.memory_mib * 1024}/{free_kib}", vm.id)

    def _not_locked(self, vm: OnedVm, operation: int) -> None:
        if 0 < vm.locked <= operation:
            raise Refusal(AUTHORIZATION, f"User [0] : VM is locked. [{vm.id}].", vm.id)

    def _known(self, arguments: tuple[Any, ...]) -> None:
        if not arguments or arguments[0] not in (ADMIN, OWNER):
            raise Refusal(AUTHENTICATION, "User couldn't be authenticated, aborting call.")

    def _admin(self, session: str) -> None:
        if session != ADMIN:
            raise Refusal(AUTHORIZATION, "User [5] : Not authorized to perform this.")

    def _host(self, number: int) -> OnedHost:
        _whole(number)
        if number not in self.hosts:
            raise Refusal(NO_EXISTS, f"Error getting host [{number}].", number)
        return self.hosts[number]

    def _vm(self, session: str, number: int) -> OnedVm:
        _whole(number)
        if number not in self.vms:
            raise Refusal(NO_EXISTS, f"Error getting virtual machine [{number}].", number)
        if session == OWNER and self.vms[number].uid == 0:
            raise Refusal(AUTHORIZATION, "User [5] : Not authorized to perform USE VM.", number)
        return self.vms[number]

    def _listed(self, session: str, filter_flag: int, _start: int, _end: int, state: int) -> Iterator[OnedVm]:
        if filter_flag not in (-4, -3, -2, -1):
            raise Refusal(API, "Incorrect filter_flag")
        for vm in self.vms.values():
            wanted = vm.state != DONE if state == -1 else state in (-2, vm.state)
            if wanted and (session == ADMIN or vm.uid != 0):
                yield vm


def _whole(number: Any) -> None:
    if type(number) is not int:
        raise xmlrpc.client.Fault(-501, "Invalid argument type")


def _parsed(text: str) -> Any:
    if not isinstance(text, str):
        raise xmlrpc.client.Fault(-501, "Invalid argument type")
    try:
        return parse(text)
    except BadTemplateError as error:
        raise Refusal(INTERNAL, f"Cannot update template. Parse error: {error}") from error


def _pool(tag: str, members: Any) -> str:
    return f"<{tag}>{''.join(members)}</{tag}>"


class _Server(ThreadingMixIn, SimpleXMLRPCServer):
    daemon_threads = True
    oned: Oned


class _Handler(SimpleXMLRPCRequestHandler):
    rpc_paths = ("/RPC2",)
    server: _Server

    def do_POST(self) -> None:
        raw = self.server.oned.http
        if raw is None:
            super().do_POST()
            return
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.wfile.write(raw)
        self.close_connection = True


@contextmanager
def served(oned: Oned) -> Iterator[str]:
    """Serve it on a port of this machine; gives the endpoint."""
    server = _Server(("127.0.0.1", 0), _Handler, logRequests=False, allow_none=False)
    server.oned = oned
    server.register_instance(_Dispatch(oned))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/RPC2"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        oned.settle()


class _Dispatch:
    def __init__(self, oned: Oned) -> None:
        self._oned = oned

    def _dispatch(self, method: str, arguments: tuple[Any, ...]) -> Any:
        return self._oned.answer(method, arguments)
