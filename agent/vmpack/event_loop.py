"""libvirt's event loop, running in one background thread of this process.

Called by everything that opens a connection and wants events, and always before an embedded connection
is opened. Promises that the loop exists once, however often and from however many threads it is asked for.
"""

import threading

import libvirt

_lock = threading.Lock()
_thread: threading.Thread | None = None


def start_event_loop() -> None:
    """Start the loop unless it runs already. It ends with the process."""
    global _thread
    with _lock:
        if _thread is None:
            libvirt.virEventRegisterDefaultImpl()
            _thread = threading.Thread(target=_run, name="libvirt-events", daemon=True)
            _thread.start()


def _run() -> None:
    while True:
        libvirt.virEventRunDefaultImpl()
