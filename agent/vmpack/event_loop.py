"""libvirt's event loop, running in one background thread of this process.

Called by everything that opens a connection and wants events, and always before an embedded connection
is opened. Promises that the loop exists once, however often and from however many threads it is asked for,
and that it has ended before the interpreter does: an event that arrives later would crash the process.
"""

import atexit
import threading

import libvirt

_STOP_DEADLINE_S = 5.0

_lock = threading.Lock()
_thread: threading.Thread | None = None
_stopping = threading.Event()


def start_event_loop() -> None:
    """Start the loop unless it runs already. It ends with the process."""
    global _thread
    with _lock:
        if _thread is None:
            libvirt.virEventRegisterDefaultImpl()
            _thread = threading.Thread(target=_run, name="libvirt-events", daemon=True)
            _thread.start()
            atexit.register(_stop, _thread)


def _run() -> None:
    while not _stopping.is_set():
        libvirt.virEventRunDefaultImpl()


def _stop(thread: threading.Thread) -> None:
    _stopping.set()
    libvirt.virEventAddTimeout(0, lambda _timer, _opaque: None, None)
    thread.join(_STOP_DEADLINE_S)
