"""A small parent for programs whose QEMUs outlive them: it adopts every orphan, and leaves none behind.

QEMU makes itself a daemon, so it belongs to nobody once its starter is gone. `supervise` and the
private daemon run their program below this one. It takes in what the program leaves, buries the dead at
once (libvirt waits for that), and when the program ends, or SIGTERM comes, or the starter dies (its end of
the `--tie` pipe closes), it ends the program and kills whatever is left. It stands alone, because it is
also run as a program:

    python3 -I -S reaper.py [--tie FD] [--lock FD] [--outages 1] -- PROGRAM ARGUMENTS...

With `--outages` SIGUSR1 kills the program and nothing else, and SIGUSR2 starts it again: what it had started
lives on meanwhile.
"""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence

GRACE_S = 30.0

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_SI_KERNEL = 0x80
_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


class Reaper:
    """A reaper process with its program, tied to this process unless it is `detached`."""

    def __init__(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str] | None = None,
        lock_fd: int | None = None,
        output: int | None = None,
        detached: bool = False,
        new_session: bool = False,
        outages: bool = False,
        around: Sequence[str] = (),
    ) -> None:
        """`around` is a program with its arguments that becomes the reaper once its place is prepared."""
        options = ["--outages", "1"] if outages else []
        fds: list[int] = []
        self._tie: int | None = None
        if not detached:
            read_end, self._tie = os.pipe()
            options += ["--tie", str(read_end)]
            fds.append(read_end)
        if lock_fd is not None:
            options += ["--lock", str(lock_fd)]
            fds.append(lock_fd)
        try:
            self._process = subprocess.Popen(
                [*around, sys.executable, "-I", "-S", __file__, *options, "--", *argv],
                env=environment,
                pass_fds=fds,
                stdin=subprocess.DEVNULL if new_session else None,
                stdout=output,
                stderr=output,
                start_new_session=new_session,
            )
        finally:
            if not detached:
                os.close(read_end)
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """Exit code once the reaper has ended, else None."""
        return self._process.poll()

    def end(self) -> None:
        """End the program and all it started; returns when nothing is left."""
        if self._process.poll() is None:
            self._process.terminate()
        self._process.wait()
        if self._tie is not None:
            os.close(self._tie)
            self._tie = None

    def __enter__(self) -> "Reaper":
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


def block_signals() -> set[signal.Signals]:
    """Block what we wait for; signals that our starter had ignored (nohup, background jobs) stay ignored."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signals = {number for number in _FORWARDED if signal.getsignal(number) != signal.SIG_IGN}
    signals.add(signal.SIGCHLD)
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    return signals


def attend(
    child: int,
    signals: set[signal.Signals],
    reap: Callable[[], dict[int, int]],
    grace_s: float | None = None,
    outage: Callable[[int], int | None] | None = None,
) -> int:
    """Forward signals to the child until it ends; return its wait status.

    With `grace_s` a child that was told to end is killed when that time is over. With `outage` SIGUSR1 and
    SIGUSR2 are not forwarded: the first calls it, and it returns the child's successor, or None for the end.
    """
    deadline_s: float | None = None
    while True:
        if deadline_s is None:
            info = signal.sigwaitinfo(signals)
        else:
            maybe = signal.sigtimedwait(signals, max(0.0, deadline_s - time.monotonic()))
            if maybe is None:
                os.kill(child, signal.SIGKILL)
                deadline_s = None
                continue
            info = maybe
        if info.si_signo == signal.SIGCHLD:
            ended = reap()
            if child in ended:
                return ended[child]
        elif outage is not None and info.si_signo in (signal.SIGUSR1, signal.SIGUSR2):
            successor = outage(child) if info.si_signo == signal.SIGUSR1 else child
            if successor is None:
                return signal.SIGKILL
            child = successor
        elif info.si_code != _SI_KERNEL:  # a terminal tells the whole group by itself
            os.kill(child, info.si_signo)
            if (
                grace_s is not None
                and info.si_signo in (signal.SIGTERM, signal.SIGHUP)
                and deadline_s is None
            ):
                deadline_s = time.monotonic() + grace_s


def reap_dead(pid: int) -> dict[int, int]:
    """Bury the dead: one child, or all with -1. Returns their wait statuses."""
    ended: dict[int, int] = {}
    while True:
        try:
            dead, status = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            return ended
        if dead == 0:
            return ended
        ended[dead] = status


def exit_code(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _children() -> list[int]:
    own = str(os.getpid())
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as file:
                    parent = file.read().rpartition(")")[2].split()[1]
            except OSError:
                continue  # it ended meanwhile
            if parent == own:
                found.append(int(name))
    return found


def _kill_descendants() -> None:
    """Kill children until none is left; the children of a killed one come to us, and are next."""
    while True:
        for pid in _children():
            os.kill(pid, signal.SIGKILL)
        try:
            os.wait()
        except ChildProcessError:
            return


def _watch_tie(fd: int) -> None:
    while os.read(fd, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _outage(child: int, signals: set[signal.Signals], start: Callable[[], int]) -> int | None:
    """Kill the child and start its successor when SIGUSR2 comes; None when we are told to end instead."""
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while True:
        number = signal.sigwaitinfo(signals).si_signo
        if number == signal.SIGUSR2:
            return start()
        if number == signal.SIGCHLD:
            reap_dead(-1)
        elif number != signal.SIGUSR1:
            return None


def _start_child(argv: list[str], libc: ctypes.CDLL) -> int:
    child = os.fork()
    if child:
        return child
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    try:
        os.execvp(argv[0], argv)
    except OSError as error:
        print(f"{argv[0]}: {error.strerror}", file=sys.stderr, flush=True)
        os._exit(127)


def main() -> int:
    """The program: see the top of this file."""
    split = sys.argv.index("--")
    options = dict(zip(sys.argv[1:split:2], map(int, sys.argv[2:split:2]), strict=True))
    argv = sys.argv[split + 1 :]
    outages = options.pop("--outages", 0)
    for fd in options.values():
        os.set_inheritable(fd, False)
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signals = block_signals()

    def start() -> int:
        return _start_child(argv, libc)

    child = start()
    if "--tie" in options:
        threading.Thread(target=_watch_tie, args=(options["--tie"],), daemon=True).start()
    outage = (lambda child: _outage(child, signals, start)) if outages else None
    status = attend(child, signals, lambda: reap_dead(-1), GRACE_S, outage)
    _kill_descendants()
    return exit_code(status)


if __name__ == "__main__":
    sys.exit(main())
