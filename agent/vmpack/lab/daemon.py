"""A private libvirtd that several programs can use, far from the system's own.

Called by `Lab`. As root it runs in its own mount, network and host name space, where libvirt's system
folders are the lab's; as an ordinary user it runs in session mode with its own folders. It runs below the
reaper, so that no guest outlives it, and holds the lab's lock while it runs. Two of them can share a network
to migrate guests to each other. The system's libvirt is never touched.
"""

import contextlib
import os
import re
import shutil
import signal
import socket
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from vmpack.errors import AlreadyRunningError, HypervisorError, UnavailableError
from vmpack.lab import namespace
from vmpack.lab.embed import QEMU_CONF, QEMU_CONF_AS_ROOT, home_environment
from vmpack.lab.reaper import Reaper
from vmpack.lab.state import FILES_FOLDER, GuestFiles, StateFolder

START_DEADLINE_S = 60.0
STOP_DEADLINE_S = 60.0

_DAEMONS = ("libvirtd", "virtqemud")


@dataclass(frozen=True, slots=True)
class HostNetwork:
    """The address that guests migrate to, in a network of the lab's own or in that of another's reaper."""

    address: str
    shared_with: int | None = None


class PrivateDaemon:
    """A running private daemon: made by `start_daemon` or found by `find_daemon`."""

    def __init__(self, state: StateFolder, daemon: str, reaper: Reaper | None) -> None:
        session = os.geteuid() != 0
        run = state.root / "run/libvirt" if session else state.root / "run"
        self.socket = run / f"{daemon}-sock".replace("libvirtd", "libvirt")
        self.uri = f"qemu+unix:///{'session' if session else 'system'}?socket={quote(str(self.socket))}"
        self.pid_folder = run / "qemu/run" if session else run / "qemu"
        self.files = state.files if session else GuestFiles(Path("/run/libvirt") / FILES_FOLDER)
        self._state = state
        self._reaper = reaper

    @property
    def pid(self) -> int:
        """Process id of the daemon, or of the one that was killed last."""
        return int((self._state.root / "daemon.pid").read_text())

    def kill(self) -> None:
        """End the daemon as a crash does (kill -9); its guests run on, until `restart` or the lab's end.

        Raises HypervisorError where the lab does not run.
        """
        pid = self.pid
        self._tell_reaper(signal.SIGUSR1)
        _wait_until(lambda: not Path(f"/proc/{pid}").exists(), f"the libvirt daemon {pid} does not end")

    def restart(self) -> None:
        """Start the daemon again after `kill`; returns once it answers. Raises HypervisorError."""
        self._tell_reaper(signal.SIGUSR2)
        _wait_until(self.answers, f"the libvirt daemon does not come back: {_last_words(self._state)}")

    def answers(self) -> bool:
        """Does the daemon take connections?"""
        with socket.socket(socket.AF_UNIX) as client:
            try:
                client.connect(str(self.socket))
            except OSError:
                return False
        return True

    def _tell_reaper(self, number: signal.Signals) -> None:
        reaper = self.reaper_pid
        if reaper is None:
            raise HypervisorError(f"no lab runs in {self._state.root}", "start it with `vmpack lab up`")
        os.kill(reaper, number)

    @property
    def reaper_pid(self) -> int | None:
        """Process id of the reaper above the daemon; None when it does not run."""
        return running_reaper(self._state)

    def stop(self) -> None:
        """End the daemon and its guests; returns when the reaper has ended. Raises HypervisorError."""
        if self._reaper is not None:
            self._reaper.end()
        stop_daemon(self._state)


def start_daemon(state: StateFolder, detached: bool, network: HostNetwork | None = None) -> PrivateDaemon:
    """Start a private daemon and wait until it answers.

    `detached` lets it live on after this process; otherwise it ends with it. Raises AlreadyRunningError,
    UnavailableError where libvirt is not installed, HypervisorError with the daemon's last words.
    """
    daemon = _installed_daemon()
    lock = _take_lock(state)
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, lock)
        output = os.open(
            state.root / "daemon.out", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600
        )
        stack.callback(os.close, output)
        environment = _configure(state, daemon, network)
        (state.root / "daemon").write_text(Path(daemon).name)
        reaper = Reaper(
            [daemon, "-f", str(_daemon_conf(state, daemon)), "-p", str(state.root / "daemon.pid")],
            environment=environment,
            lock_fd=lock,
            output=output,
            detached=detached,
            new_session=True,
            outages=True,
            around=_namespace(state, network) if os.geteuid() == 0 else (),
        )
        os.truncate(lock, 0)
        os.write(lock, str(reaper.pid).encode())
        private = PrivateDaemon(state, Path(daemon).name, reaper)
        _wait_until_it_answers(private, reaper, state)
    return private


def find_daemon(state: StateFolder) -> PrivateDaemon | None:
    """The daemon that another process started for this lab, if it runs."""
    if running_reaper(state) is None:
        return None
    return PrivateDaemon(state, (state.root / "daemon").read_text(), None)


def running_reaper(state: StateFolder) -> int | None:
    """Process id of the reaper that holds this lab's lock; None when nobody holds it."""
    if not state.is_locked():
        return None
    text = state.lock.read_text()
    return int(text) if text.isdigit() else None


def stop_daemon(state: StateFolder) -> None:
    """End the daemon of a lab and its guests; those that a crash left over are for `kill_leftovers`.

    Raises HypervisorError when something still runs after a minute.
    """
    deadline_s = time.monotonic() + STOP_DEADLINE_S
    told: int | None = None
    while state.is_locked():
        pid = running_reaper(state)
        if pid is not None and pid != told:  # a lab that has only begun to start has no number yet
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
            told = pid
        if time.monotonic() > deadline_s:
            raise HypervisorError(
                f"process {told} of the lab does not end", f"look at {state.root}/daemon.out"
            )
        time.sleep(0.02)


def kill_leftovers(state: StateFolder) -> list[int]:
    """Kill the QEMUs with this lab's mark, and return their process ids once they are gone.

    Raises HypervisorError.
    """
    killed = leftovers(state)
    deadline_s = time.monotonic() + STOP_DEADLINE_S
    for pid in killed:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    while leftovers(state):
        if time.monotonic() > deadline_s:
            raise HypervisorError(
                f"QEMUs of {state.root} do not end: {leftovers(state)}", "kill them by hand"
            )
        time.sleep(0.02)
    return killed


def leftovers(state: StateFolder) -> list[int]:
    """Process ids of living QEMUs whose command line carries this lab's mark."""
    mark = re.compile(rb"(?:^|[ \0])" + re.escape(os.fsencode(state.mark)) + rb"(?:[ \0]|$)")
    found = []
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            command = (process / "cmdline").read_bytes()
        except OSError:
            continue  # it ended meanwhile
        if mark.search(command) and b"qemu" in command.partition(b"\0")[0]:
            found.append(int(process.name))
    return found


def _installed_daemon() -> str:
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
    for name in _DAEMONS:
        found = shutil.which(name, path=path)
        if found:
            return found
    raise UnavailableError(
        "libvirt's daemon is not installed",
        "install libvirt-daemon and libvirt-daemon-driver-qemu (Debian, Ubuntu) or libvirt-daemon-kvm (EL)",
    )


def _take_lock(state: StateFolder) -> int:
    try:
        return state.take_lock()
    except BlockingIOError:
        raise AlreadyRunningError(
            f"a lab already runs in {state.root}", "end it with `vmpack lab down`"
        ) from None


def _configure(state: StateFolder, daemon: str, network: HostNetwork | None) -> dict[str, str]:
    """Write the daemon's configuration and return its environment."""
    as_root = os.geteuid() == 0
    qemu_conf = state.etc / "qemu.conf" if as_root else state.etc / "libvirt/qemu.conf"
    qemu_conf.parent.mkdir(exist_ok=True)
    migration = f'migration_host = "{network.address}"\n' if network else ""
    qemu_conf.write_text((QEMU_CONF_AS_ROOT if as_root else QEMU_CONF) + migration)
    log = state.root / "log"
    log.mkdir(exist_ok=True)
    daemon_conf = {
        "host_uuid": f'"{uuid.uuid5(uuid.NAMESPACE_OID, str(state.root))}"',
        "auth_unix_ro": '"none"',
        "auth_unix_rw": '"none"',
        "unix_sock_rw_perms": '"0700"',
        "unix_sock_ro_perms": '"0700"',
        "log_outputs": f'"3:file:{log}/{Path(daemon).name}.log"',
    }
    _daemon_conf(state, daemon).write_text(
        "".join(f"{key} = {value}\n" for key, value in daemon_conf.items())
    )
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("XDG_", "LIBVIRT_", "DBUS_"))
    }
    if not as_root:
        environment |= home_environment(state)
    return environment


def _daemon_conf(state: StateFolder, daemon: str) -> Path:
    return state.etc / f"{Path(daemon).name}.conf"


def _namespace(state: StateFolder, network: HostNetwork | None) -> list[str]:
    words = [str(state.root), f"vmpack-{state.root.name}"]
    if network is not None:
        words += [network.address, *([] if network.shared_with is None else [str(network.shared_with)])]
    return [sys.executable, "-I", "-S", namespace.__file__, *words, "--"]


def _wait_until_it_answers(private: PrivateDaemon, reaper: Reaper, state: StateFolder) -> None:
    deadline_s = time.monotonic() + START_DEADLINE_S
    while not private.answers():
        if reaper.poll() is not None:
            raise HypervisorError("the private libvirt daemon ended at once", _last_words(state))
        if time.monotonic() > deadline_s:
            reaper.end()
            raise HypervisorError("the private libvirt daemon does not answer", _last_words(state))
        time.sleep(0.02)


def _wait_until(condition: Callable[[], bool], complaint: str) -> None:
    deadline_s = time.monotonic() + START_DEADLINE_S
    while not condition():
        if time.monotonic() > deadline_s:
            raise HypervisorError(complaint)
        time.sleep(0.02)


def _last_words(state: StateFolder) -> str:
    lines = (state.root / "daemon.out").read_text(errors="replace").strip().splitlines()
    return f"it said: {lines[-1]}" if lines else f"see {state.root}/log"
