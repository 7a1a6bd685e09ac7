"""The host's GPUs and who uses them. Called by source.py in every interval.

One thread of its own asks NVIDIA's driver, which may hang, so that no interval waits for it: an interval gets
what the newest finished reading said, and has the next one begun. Promises never to raise, and that a GPU
is there with a fault rather than missing.
"""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path

from vmpack.model.gpu import Gpu
from vmpack.model.gpu_selection import GpuSelection
from vmpack.observe.gpu_users import GpuUsers, assigned
from vmpack.observe.nvml import NO_DRIVER, RETRY_S, Nvml, NvmlReading, unread
from vmpack.observe.pci_gpus import parent_gpu, passthrough_gpus

log = logging.getLogger(__name__)

HANGS = "the driver gives no answer"
DEADLINE_S = 10.0
"""A reading that takes longer hangs: what was known before is no longer true."""
FIRST_S = 2.0
"""The very first look waits this long: a host that starts must not seem to have no GPU."""


class GpuReader:
    """All selected GPUs. `read` is for one thread; `close` may come from any."""

    def __init__(
        self,
        selection: GpuSelection,
        *,
        sys: Path = Path("/sys"),
        deadline_s: float = DEADLINE_S,
        retry_s: float = RETRY_S,
    ) -> None:
        self._selection = selection
        self._sys = sys
        self._deadline_s = deadline_s
        self._nvml = Nvml(selection, sys=sys, retry_s=retry_s)
        self._changed = threading.Condition()
        self._wanted = 0
        """How many readings were asked for."""
        self._done = 0
        """How many of them the newest finished one answers."""
        self._began_s: float | None = None
        self._reading = NvmlReading((), "no_driver", NO_DRIVER)
        self._thread: threading.Thread | None = None
        self._closed = False

    def read(self, users: GpuUsers) -> tuple[Gpu, ...]:
        """The GPUs as of the newest finished reading, with the users of now; has the next reading begun."""
        if self._selection.none:
            return ()
        is_first = self._thread is None
        self._begin()
        if is_first:
            self.settle(FIRST_S)
        return self._merged(users)

    def read_now(self, users: GpuUsers) -> tuple[Gpu, ...]:
        """The GPUs as of a reading that begins now, unless it hangs: for a command that looks once."""
        if self._selection.none:
            return ()
        self._begin()
        self.settle(self._deadline_s)
        return self._merged(users)

    def driver(self) -> NvmlReading:
        """What the driver said in the newest reading; a fault where the one under way hangs."""
        with self._changed:
            hangs = self._began_s is not None and time.monotonic() - self._began_s >= self._deadline_s
            reading = self._reading
        if not hangs:
            return reading
        return NvmlReading(tuple(unread(gpu, HANGS) for gpu in reading.gpus), "failed", HANGS)

    def settle(self, timeout_s: float) -> bool:
        """Wait until every reading that was asked for is done; False when that takes longer."""
        with self._changed:
            wanted = self._wanted
            return self._changed.wait_for(lambda: self._done >= wanted, timeout_s)

    def close(self) -> None:
        """End the thread with the reading under way, and let go of the driver."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def join(self) -> None:
        """Wait for the end that `close` began; for ever, where a call into the driver never comes back."""
        if self._thread is not None:
            self._thread.join()

    def _begin(self) -> None:
        with self._changed:
            if self._closed:
                return
            self._wanted += 1
            self._changed.notify_all()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="gpus", daemon=True)
                self._thread.start()

    def _merged(self, users: GpuUsers) -> tuple[Gpu, ...]:
        owned = {device for devices in users.devices.values() for device in devices}
        apart = tuple(
            gpu
            for gpu in passthrough_gpus(self._sys, owned)
            if self._selection.takes_address(gpu.pci_address)
        )
        taken = {gpu.pci_address for gpu in apart}
        driven = tuple(gpu for gpu in self.driver().gpus if gpu.pci_address not in taken)
        parents = {
            device: parent for device in owned if (parent := parent_gpu(self._sys, device)) is not None
        }
        return assigned((*driven, *apart), users, parents)

    def _run(self) -> None:
        try:
            while (wanted := self._next()) is not None:
                reading = self._attempt()
                with self._changed:
                    self._reading, self._done, self._began_s = reading, wanted, None
                    self._changed.notify_all()
        finally:
            self._nvml.close()

    def _next(self) -> int | None:
        """Wait for a reading to be wanted; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._wanted > self._done)
            if self._closed:
                return None
            self._began_s = time.monotonic()
            return self._wanted

    def _attempt(self) -> NvmlReading:
        try:
            return self._nvml.read(time.monotonic())
        except Exception as error:  # the thread's boundary: a defect must not hide all GPUs for good
            why = f"a defect in vmpack: {type(error).__name__}"
            if self._reading.detail != why:
                log.warning("GPUs cannot be read: %s; please report it", why, exc_info=error)
            return NvmlReading(tuple(unread(gpu, why) for gpu in self._reading.gpus), "failed", why)
