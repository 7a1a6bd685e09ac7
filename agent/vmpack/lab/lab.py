"""A lab: a libvirt of its own with tiny real guests, the same whether embedded or behind a private daemon.

Used by the demo, the tests, the benchmarks and `vmpack lab`. Promises that `close` returns only when no guest
and no daemon of the lab runs any more and its folder is gone, and that a tied lab ends with its program.
"""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from vmpack.errors import AlreadyRunningError, GuestGoneError, UnavailableError, VmpackError
from vmpack.hypervisor import Hypervisor, translated
from vmpack.lab.accelerator import Accelerator, detect_accelerator
from vmpack.lab.control import GuestControl
from vmpack.lab.daemon import PrivateDaemon, find_daemon, kill_leftovers, start_daemon, stop_daemon
from vmpack.lab.domain_xml import domain_xml, find_emulator, read_spec
from vmpack.lab.embed import EmbeddedLibvirt
from vmpack.lab.guest_spec import GuestSpec
from vmpack.lab.image import GuestImage, build_image
from vmpack.lab.state import StateFolder, named_state, temporary_state
from vmpack.units import KIB

READY_DEADLINE_S = 180.0

# A busy libvirt starts guests one after the other anyway; more threads only queue.
_PARALLEL_STARTS = 4


def end_lab(name: str = "default") -> bool:
    """End the named lab with all its guests, also what a crash left of it; False when there was nothing.

    Raises HypervisorError when something does not end.
    """
    state = named_state(name)
    found = state.root.is_dir()
    stop_daemon(state)
    kill_leftovers(state)
    state.remove()
    return found


class LabGuest:
    """A running guest of a lab."""

    def __init__(self, lab: "Lab", name: str) -> None:
        self.name = name
        self._lab = lab
        self._file_name = GuestSpec(name).file_name
        self.control = GuestControl(lab.state.files.control_socket(self._file_name))

    @property
    def domain(self) -> Any:
        """The virDomain. Raises GuestGoneError."""
        with translated(f"find guest {self.name}"):
            return self._lab.hypervisor.connection().lookupByName(self.name)

    @property
    def uuid(self) -> str:
        """The domain's uuid. Raises GuestGoneError."""
        return str(self.domain.UUIDString())

    @property
    def pid(self) -> int:
        """Process id of the guest's QEMU. Raises GuestGoneError."""
        try:
            return int((self._lab.pid_folder / f"{self.name}.pid").read_text())
        except (OSError, ValueError) as error:
            raise GuestGoneError(f"guest {self.name} has no process") from error

    def rss_bytes(self) -> int:
        """Host memory that the guest's QEMU holds. Raises GuestGoneError."""
        try:
            pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        except OSError as error:
            raise GuestGoneError(f"guest {self.name} has no process") from error
        return pages * os.sysconf("SC_PAGE_SIZE")

    def size(self) -> tuple[int, int, int]:
        """Nominal and balloon in bytes, and the number of vCPUs. Raises GuestGoneError."""
        with translated(f"read the size of guest {self.name}"):
            _, nominal_kib, balloon_kib, vcpus, _ = self.domain.info()
        return nominal_kib * KIB, balloon_kib * KIB, vcpus

    def spec(self) -> GuestSpec:
        """What the guest was started with, as far as `read_spec` tells. Raises GuestGoneError."""
        with translated(f"describe guest {self.name}"):
            return read_spec(self.domain.XMLDesc(0))

    def console_text(self) -> str:
        """All that the guest has printed since it was started first."""
        with suppress(OSError):
            return self._lab.state.files.console(self._file_name).read_text(errors="replace")
        return ""

    def is_ready(self) -> bool:
        """True once the guest's init has started its services."""
        return "READY " in self.console_text()

    def is_running(self) -> bool:
        """False while it still comes in from another host, and once it is gone."""
        import libvirt

        with suppress(GuestGoneError), translated(f"read the state of guest {self.name}"):
            return bool(self.domain.info()[0] == libvirt.VIR_DOMAIN_RUNNING)
        return False

    def destroy(self) -> None:
        """End the guest at once; one that is gone already is fine."""
        with suppress(GuestGoneError), translated(f"destroy guest {self.name}"):
            self.domain.destroy()


class Lab:
    """Guests under one libvirt of the lab's own. Make it with `embedded`, `private`, `up` or `attach`."""

    def __init__(self, state: StateFolder, libvirt: EmbeddedLibvirt | PrivateDaemon) -> None:
        self.state = state
        self.uri = libvirt.uri
        self.pid_folder = libvirt.pid_folder
        self.hypervisor = Hypervisor(self.uri)
        self._libvirt = libvirt
        self._parts: tuple[GuestImage, Accelerator, Path] | None = None

    @classmethod
    def embedded(cls) -> "Lab":
        """A lab inside this process, which must run below `supervise`: its guests outlive it otherwise."""
        state = temporary_state()
        return cls(state, EmbeddedLibvirt(state, as_root=os.geteuid() == 0))

    @classmethod
    def private(cls) -> "Lab":
        """A lab with a daemon that ends with this process, however this process ends."""
        state = temporary_state()
        try:
            return cls(state, start_daemon(state, detached=False))
        except VmpackError:
            state.remove()
            raise

    @classmethod
    def up(cls, name: str = "default") -> "Lab":
        """The named lab, started where it does not run; it outlives this process. Crashed ones are cleared.

        Raises UnavailableError, AccessError, HypervisorError.
        """
        state = named_state(name)
        daemon = find_daemon(state)
        if daemon is None:
            if state.is_locked():
                raise AlreadyRunningError(f"lab {name} is being started elsewhere", "try again in a moment")
            kill_leftovers(state)
            state.remove()
            state.prepare()
            daemon = start_daemon(state, detached=True)
        return cls(state, daemon)

    @classmethod
    def attach(cls, name: str = "default") -> "Lab":
        """The named lab, which must run. Raises UnavailableError."""
        state = named_state(name)
        daemon = find_daemon(state)
        if daemon is None:
            option = "" if name == "default" else f" --name {name}"
            raise UnavailableError(f"no lab {name!r} is running", f"start it with `vmpack lab up{option}`")
        return cls(state, daemon)

    def start(self, *specs: GuestSpec) -> list[LabGuest]:
        """Start guests beside each other; they still boot when this returns. Raises HypervisorError."""
        self._guest_parts()
        connection = self.hypervisor.connection()

        def start_one(spec: GuestSpec) -> LabGuest:
            text = self.describe(spec)
            with translated(f"start guest {spec.name}"):
                connection.createXML(text, 0)
            return LabGuest(self, spec.name)

        with ThreadPoolExecutor(_PARALLEL_STARTS) as pool:
            return list(pool.map(start_one, specs))

    def describe(self, spec: GuestSpec) -> str:
        """The domain XML of a guest, for whoever starts it by other means; its console is empty then."""
        image, accelerator, emulator = self._guest_parts()
        self.state.files.console(spec.file_name).write_text("")
        return domain_xml(spec, image, accelerator, emulator, self._libvirt.files, self.state.mark)

    def wait_ready(self, deadline_s: float = READY_DEADLINE_S) -> None:
        """Wait until every guest has booted. Raises UnavailableError that names those that have not."""
        end_s = time.monotonic() + deadline_s
        waiting = self.guests()
        while waiting := [guest for guest in waiting if not guest.is_ready()]:
            if time.monotonic() > end_s:
                names = ", ".join(guest.name for guest in waiting)
                last = (waiting[0].console_text().strip().splitlines() or ["nothing"])[-1]
                raise UnavailableError(
                    f"not booted after {deadline_s:g} s: {names}", f"the console said: {last[:200]}"
                )
            time.sleep(0.05)

    def guests(self) -> list[LabGuest]:
        """Running guests, by name."""
        with translated("list the lab's guests"):
            names = sorted(domain.name() for domain in self.hypervisor.connection().listAllDomains())
        return [LabGuest(self, name) for name in names]

    def guest(self, name: str) -> LabGuest:
        """One running guest. Raises GuestGoneError that names those there are."""
        guests = {guest.name: guest for guest in self.guests()}
        if name not in guests:
            raise GuestGoneError(f"the lab has no guest {name!r}", f"it has {', '.join(guests) or 'none'}")
        return guests[name]

    @property
    def libvirt_pid(self) -> int:
        """Process id of the lab's libvirt daemon. Raises UnavailableError where libvirt is embedded."""
        return self._daemon().pid

    def kill_libvirt(self) -> None:
        """Kill the lab's libvirt daemon as a crash would (kill -9); the guests run on without it.

        Raises UnavailableError where libvirt is embedded.
        """
        self._daemon().kill()

    def restart_libvirt(self) -> None:
        """Start the daemon again after `kill_libvirt`; it finds the guests, and answers when this returns.

        Raises UnavailableError where libvirt is embedded, HypervisorError.
        """
        self._daemon().restart()

    def _daemon(self) -> PrivateDaemon:
        if isinstance(self._libvirt, EmbeddedLibvirt):
            raise UnavailableError("an embedded lab has no libvirt daemon", "use a private lab")
        return self._libvirt

    def close(self) -> None:
        """Destroy all guests, end the daemon, delete the folder.

        Raises HypervisorError if a guest still runs.
        """
        self.stop()
        kill_leftovers(self.state)
        self.state.remove()

    def stop(self) -> None:
        """End the guests and libvirt, as a host that goes dark; the folder stays. Raises HypervisorError."""
        for guest in self.guests() if isinstance(self._libvirt, EmbeddedLibvirt) else ():
            guest.destroy()
        self.hypervisor.close()
        self._libvirt.stop()

    def __enter__(self) -> "Lab":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _guest_parts(self) -> tuple[GuestImage, Accelerator, Path]:
        if self._parts is None:
            self._parts = build_image(), detect_accelerator(), find_emulator()
        return self._parts
