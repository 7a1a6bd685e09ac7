"""Two labs that can live-migrate guests to each other: the hosts "a" and "b".

Used by the tests and `vmpack lab pair`. Each host has a libvirt, a name and a host uuid of its own; the two
share one network that nobody else is in, so guests migrate over TCP as between real hosts, and without a
changed XML, for both see their guests' files at the same place. Needs root.
"""

import os
import shutil
from pathlib import Path

from vmpack.errors import AccessError, AlreadyRunningError, GuestGoneError, UnavailableError, VmpackError
from vmpack.lab.daemon import (
    HostNetwork,
    PrivateDaemon,
    find_daemon,
    kill_leftovers,
    start_daemon,
    stop_daemon,
)
from vmpack.lab.lab import Lab, LabGuest
from vmpack.lab.state import StateFolder, make_own, named_pair, pair_hosts, temporary_pair

# of a network for documentation: nobody's real one
_ADDRESSES = ("192.0.2.1", "192.0.2.2")


class Pair:
    """Two labs in one network. Make it with `private`, `up` or `attach`."""

    def __init__(self, folder: Path, daemons: tuple[PrivateDaemon, PrivateDaemon]) -> None:
        self.folder = folder
        self.a, self.b = (
            Lab(state, daemon) for state, daemon in zip(pair_hosts(folder), daemons, strict=True)
        )

    @classmethod
    def private(cls) -> "Pair":
        """A pair that ends with this process, however this process ends.

        Raises AccessError for others than root, UnavailableError, HypervisorError.
        """
        _demand_root()
        return cls._start(temporary_pair(), detached=False)

    @classmethod
    def up(cls, name: str = "default") -> "Pair":
        """The named pair, started where it does not run; it outlives this process. Crashed ones are cleared.

        Raises AccessError for others than root, AlreadyRunningError when only one of its hosts runs,
        UnavailableError, HypervisorError.
        """
        _demand_root()
        folder = named_pair(name)
        daemons = _running(folder)
        if daemons is not None:
            return cls(folder, daemons)
        if any(state.is_locked() for state in pair_hosts(folder)):
            raise AlreadyRunningError(
                f"only one host of pair {name} runs", "end it with `vmpack lab pair down`, or try again"
            )
        _clear(folder)
        return cls._start(folder, detached=True)

    @classmethod
    def attach(cls, name: str = "default") -> "Pair":
        """The named pair, whose hosts must both run. Raises UnavailableError."""
        folder = named_pair(name)
        daemons = _running(folder)
        if daemons is None:
            option = "" if name == "default" else f" --name {name}"
            raise UnavailableError(
                f"no pair {name!r} is running", f"start it with `vmpack lab pair up{option}`"
            )
        return cls(folder, daemons)

    @classmethod
    def _start(cls, folder: Path, detached: bool) -> "Pair":
        make_own(folder)
        a, b = pair_hosts(folder)
        try:
            first = _start_host(a, detached, HostNetwork(_ADDRESSES[0]))
            second = _start_host(b, detached, HostNetwork(_ADDRESSES[1], shared_with=first.reaper_pid))
        except VmpackError:
            _clear(folder)
            raise
        return cls(folder, (first, second))

    @property
    def hosts(self) -> tuple[Lab, Lab]:
        """Both labs, "a" first."""
        return self.a, self.b

    def guest(self, name: str) -> LabGuest:
        """The running guest of this name, on whichever host. Raises GuestGoneError that names all."""
        guests = {guest.name: guest for lab in self.hosts for guest in lab.guests() if guest.is_running()}
        if name not in guests:
            raise GuestGoneError(f"the pair has no guest {name!r}", f"it has {', '.join(guests) or 'none'}")
        return guests[name]

    def close(self) -> None:
        """End both hosts with all their guests, and delete the folder. Raises HypervisorError."""
        for lab in self.hosts:
            lab.stop()
        _clear(self.folder)

    def __enter__(self) -> "Pair":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def end_pair(name: str = "default") -> bool:
    """End the named pair with all its guests, also what a crash left of it; False when there was nothing.

    Raises HypervisorError when something does not end.
    """
    folder = named_pair(name)
    found = folder.is_dir()
    _clear(folder)
    return found


def _clear(folder: Path) -> None:
    hosts = pair_hosts(folder)
    for state in hosts:
        stop_daemon(state)
    kill_leftovers(hosts[0])
    shutil.rmtree(folder, ignore_errors=True)


def _running(folder: Path) -> tuple[PrivateDaemon, PrivateDaemon] | None:
    first, second = (find_daemon(state) for state in pair_hosts(folder))
    return None if first is None or second is None else (first, second)


def _start_host(state: StateFolder, detached: bool, network: HostNetwork) -> PrivateDaemon:
    state.prepare()
    return start_daemon(state, detached, network)


def _demand_root() -> None:
    if os.geteuid() != 0:
        raise AccessError(
            "a pair of hosts needs root", "one host does not: `vmpack lab up` runs as an ordinary user"
        )
