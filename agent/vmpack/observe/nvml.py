"""NVIDIA's driver, asked through nvidia-ml-py: every GPU, MIG instance and vGPU as it is now.

Called by gpu.py, from one thread, which a call that hangs may keep. Promises that nvidia-ml-py is not even
imported where no driver is, that one device's trouble hides no other, and that a driver that went away is
looked for again, in growing steps.
"""

from __future__ import annotations

import ctypes
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from vmpack.model.gpu import Gpu, GpuProcess, MigInstance, Vgpu
from vmpack.model.gpu_selection import GpuSelection, pci_address
from vmpack.observe.gpu_values import celsius_of, part_of, ratio_of, text_of, watts_of
from vmpack.observe.pci_gpus import numa_node

log = logging.getLogger(__name__)

RARE_S = 60.0
"""What seldom changes, or takes the driver long to tell, is asked again after this."""
RETRY_S = 10.0
"""A driver that does not work is not tried again before; twice as long after each further time."""
RETRY_MAX_S = 60.0
VGPU_WINDOW_S = 10.0
"""A vGPU's use is its mean over this."""

LIBRARY = "libnvidia-ml.so.1"

_INIT_WITHOUT_GPUS = 1
_CURRENT, _CORRECTED, _UNCORRECTED = 0, 0, 1
_MIG_ENABLED = 1
_NO_INSTANCE = 0xFFFFFFFF
_UUID_KIND_OF_VM = 1
_SESSION_LOST = (1, 9, 12, 18)
"""NVML's error numbers: uninitialized, driver not loaded, library gone, library older than the driver."""
_LIBRARY_IS_OLD = 18
_GPU_LOST = (15, 16)
"""Lost, reset required."""
_NOT_THERE = (2, 6, 28)
"""Invalid argument, not found, GPU not found."""

NO_DRIVER = f"NVIDIA's driver is not there: no {LIBRARY}"
NO_MODULE = "Python's nvidia-ml-py is not installed"
NO_SUCH_GPU = "gpu.devices names it, but the driver has no such GPU"
OLD_LIBRARY = "the driver was upgraded under this process: start it anew"

State = Literal["no_driver", "no_module", "failed", "works"]
_Key = tuple[str, int | str]


@dataclass(frozen=True, slots=True)
class NvmlReading:
    """What the driver said."""

    gpus: tuple[Gpu, ...]
    state: State
    detail: str = ""
    """Why it does not work."""


class _SessionLostError(Exception):
    """Nothing can be asked before the driver is opened anew."""

    def __init__(self, why: str, state: State = "failed") -> None:
        super().__init__(why)
        self.state: State = state


class _GpuLostError(Exception):
    """This one device cannot be asked."""


@dataclass(slots=True)
class _Seat:
    """What is known of one device from before."""

    identity: Gpu
    read_s: float


class Nvml:
    """The driver's devices. For one thread."""

    def __init__(
        self, selection: GpuSelection, *, sys: Path = Path("/sys"), retry_s: float = RETRY_S
    ) -> None:
        self._selection = selection
        self._sys = sys
        self._retry_s = retry_s
        self._nvml: Any = None
        self._failures = 0
        self._next_try_s = 0.0
        self._last = NvmlReading((), "no_driver", NO_DRIVER)
        self._seats: dict[_Key, _Seat] = {}
        self._defects: set[_Key] = set()
        """Devices of which a defect was logged."""

    def read(self, now_s: float) -> NvmlReading:
        """All selected devices, on a monotonic clock. Raises nothing that a driver does."""
        if self._nvml is None and now_s < self._next_try_s:
            return self._last
        try:
            if self._nvml is None:
                self._open()
            reading = NvmlReading(self._gpus(now_s), "works")
        except _SessionLostError as error:
            self.close()
            reading = self._gone(now_s, error)
        if (reading.state, reading.detail) != (self._last.state, self._last.detail):
            _tell(reading)
        self._last = reading
        return reading

    def close(self) -> None:
        """Let go of the driver, which cannot be unloaded while somebody has it open."""
        nvml, self._nvml = self._nvml, None
        if nvml is not None:
            try:
                nvml.nvmlShutdown()
            except nvml.NVMLError as error:
                log.debug("closing NVML: %s", error)

    def _open(self) -> None:
        if not driver_is_there():
            raise _SessionLostError(NO_DRIVER, "no_driver")
        try:
            import pynvml
        except ImportError as error:
            raise _SessionLostError(NO_MODULE, "no_module") from error
        try:
            pynvml.nvmlInitWithFlags(_INIT_WITHOUT_GPUS)
        except pynvml.NVMLError as error:
            raise _SessionLostError(_words(error)) from error
        self._nvml = pynvml
        self._failures, self._seats = 0, {}

    def _gone(self, now_s: float, error: _SessionLostError) -> NvmlReading:
        """The devices of before with the fault; nothing of their use, which is no longer known."""
        self._next_try_s = now_s + min(self._retry_s * 2.0 ** min(self._failures, 10), RETRY_MAX_S)
        self._failures += 1
        why = str(error)
        return NvmlReading(tuple(unread(gpu, why) for gpu in self._last.gpus), error.state, why)

    def _gpus(self, now_s: float) -> tuple[Gpu, ...]:
        gpus: list[Gpu] = []
        for key in self._keys():
            gpu = self._gpu(key, now_s)
            if gpu.uuid is None or all(gpu.uuid != other.uuid for other in gpus):
                gpus.append(gpu)
        return tuple(gpus)

    def _keys(self) -> Sequence[_Key]:
        chosen = self._selection
        if chosen.all:
            return [("index", number) for number in range(self._count())]
        return [
            *(("index", number) for number in chosen.indexes),
            *(("uuid", uuid) for uuid in chosen.uuids),
            *(("pci", address) for address in chosen.pci_addresses),
        ]

    def _count(self) -> int:
        try:
            return int(self._call("nvmlDeviceGetCount"))
        except self._nvml.NVMLError as error:
            raise _SessionLostError(_words(error)) from error

    def _gpu(self, key: _Key, now_s: float) -> Gpu:
        seat = self._seats.get(key)
        try:
            handle = self._handle(key)
            uuid = text_of(self._ask("nvmlDeviceGetUUID", handle))
            if seat is None or seat.identity.uuid != uuid or now_s - seat.read_s >= RARE_S:
                seat = self._seats[key] = _Seat(self._identity(handle, uuid), now_s)
            return self._in_use(handle, seat.identity)
        except _SessionLostError:
            raise
        except _GpuLostError as error:
            why = str(error)
        except Exception as error:  # one device's boundary: what it breaks must not hide the others
            why = f"a defect in vmpack: {type(error).__name__}"
            if key not in self._defects:
                log.warning("the GPU %s cannot be read: %s; please report it", key[1], why, exc_info=error)
            self._defects.add(key)
        return unread(seat.identity if seat else _named(key), why)

    def _handle(self, key: _Key) -> Any:
        kind, name = key
        calls = {
            "index": "nvmlDeviceGetHandleByIndex",
            "uuid": "nvmlDeviceGetHandleByUUID",
            "pci": "nvmlDeviceGetHandleByPciBusId",
        }
        try:
            return self._call(calls[kind], name.encode() if isinstance(name, str) else name)
        except self._nvml.NVMLError as error:
            raise _GpuLostError(NO_SUCH_GPU if error.value in _NOT_THERE else str(error)) from error

    def _identity(self, handle: Any, uuid: str | None) -> Gpu:
        """What seldom changes."""
        pci = self._ask("nvmlDeviceGetPciInfo", handle)
        address = None if pci is None else pci_address(text_of(pci.busId) or "")
        mig = self._ask("nvmlDeviceGetMigMode", handle)
        return Gpu(
            index=self._ask("nvmlDeviceGetIndex", handle),
            uuid=uuid,
            name=text_of(self._ask("nvmlDeviceGetName", handle)),
            pci_address=address,
            numa_node=numa_node(self._sys, address),
            cores=self._ask("nvmlDeviceGetNumGpuCores", handle),
            power_limit_w=watts_of(self._ask("nvmlDeviceGetEnforcedPowerLimit", handle)),
            ecc_corrected=self._ask("nvmlDeviceGetTotalEccErrors", handle, _CORRECTED, _CURRENT),
            ecc_uncorrected=self._ask("nvmlDeviceGetTotalEccErrors", handle, _UNCORRECTED, _CURRENT),
            mig_enabled=None if mig is None else mig[0] == _MIG_ENABLED,
        )

    def _in_use(self, handle: Any, identity: Gpu) -> Gpu:
        """What changes all the time."""
        total, used, free = self._memory(handle)
        use = self._ask("nvmlDeviceGetUtilizationRates", handle)
        encoder = self._ask("nvmlDeviceGetEncoderUtilization", handle)
        decoder = self._ask("nvmlDeviceGetDecoderUtilization", handle)
        return replace(
            identity,
            memory_total_bytes=total,
            memory_used_bytes=used,
            memory_free_bytes=free,
            utilization_ratio=use and ratio_of(use.gpu),
            memory_utilization_ratio=use and ratio_of(use.memory),
            encoder_ratio=encoder and ratio_of(encoder[0]),
            decoder_ratio=decoder and ratio_of(decoder[0]),
            temperature_c=celsius_of(self._ask("nvmlDeviceGetTemperature", handle, 0)),
            power_w=watts_of(self._ask("nvmlDeviceGetPowerUsage", handle)),
            processes=self._processes(handle),
            mig_instances=self._mig_instances(handle) if identity.mig_enabled else (),
            vgpus=self._vgpus(handle),
        )

    def _memory(self, handle: Any) -> tuple[int | None, int | None, int | None]:
        """Total, used and free bytes."""
        memory = self._ask("nvmlDeviceGetMemoryInfo", handle)
        if memory is None:
            return None, None, None
        return memory.total, part_of(memory.used, memory.total), part_of(memory.free, memory.total)

    def _processes(self, handle: Any) -> tuple[GpuProcess, ...] | None:
        kinds = [
            self._ask(f"nvmlDeviceGet{kind}RunningProcesses", handle)
            for kind in ("Compute", "Graphics", "MPSCompute")
        ]
        if kinds[0] is None and kinds[1] is None:
            return None
        found = {process.pid: process.usedGpuMemory for kind in kinds for process in kind or ()}
        return tuple(GpuProcess(pid, used) for pid, used in sorted(found.items()))

    def _mig_instances(self, handle: Any) -> tuple[MigInstance, ...]:
        parts = []
        for index in range(self._ask("nvmlDeviceGetMaxMigDeviceCount", handle) or 0):
            part = self._ask("nvmlDeviceGetMigDeviceHandleByIndex", handle, index)
            if part is not None:
                parts.append(self._mig_instance(part, index))
        return tuple(parts)

    def _mig_instance(self, handle: Any, index: int) -> MigInstance:
        total, used, free = self._memory(handle)
        attributes = self._ask("nvmlDeviceGetAttributes", handle)
        return MigInstance(
            index=index,
            gpu_instance=self._ask("nvmlDeviceGetGpuInstanceId", handle),
            uuid=text_of(self._ask("nvmlDeviceGetUUID", handle)),
            name=text_of(self._ask("nvmlDeviceGetName", handle)),
            multiprocessors=attributes and attributes.multiprocessorCount,
            memory_total_bytes=total,
            memory_used_bytes=used,
            memory_free_bytes=free,
            processes=self._processes(handle),
        )

    def _vgpus(self, handle: Any) -> tuple[Vgpu, ...]:
        instances = self._ask("nvmlDeviceGetActiveVgpus", handle)
        if not instances:
            return ()
        since_us = int((time.time() - VGPU_WINDOW_S) * 1e6)
        samples = self._ask("nvmlDeviceGetVgpuUtilization", handle, since_us) or ()
        used = {sample.vgpuInstance: ratio_of(sample.smUtil.uiVal) for sample in samples}
        return tuple(self._vgpu(instance, used.get(instance)) for instance in instances)

    def _vgpu(self, instance: int, utilization_ratio: float | None) -> Vgpu:
        owner = self._ask("nvmlVgpuInstanceGetVmID", instance)
        kind = self._ask("nvmlVgpuInstanceGetType", instance)
        part = self._ask("nvmlVgpuInstanceGetGpuInstanceId", instance)
        total = None if kind is None else self._ask("nvmlVgpuTypeGetFramebufferSize", kind)
        return Vgpu(
            uuid=text_of(self._ask("nvmlVgpuInstanceGetUUID", instance)),
            vm_uuid=(text_of(owner[0]) or "").lower() if owner and owner[1] == _UUID_KIND_OF_VM else None,
            name=None if kind is None else text_of(self._ask("nvmlVgpuTypeGetName", kind)),
            memory_total_bytes=total,
            memory_used_bytes=part_of(self._vgpu_memory(instance), total),
            utilization_ratio=utilization_ratio,
            gpu_instance=None if part == _NO_INSTANCE else part,
        )

    def _vgpu_memory(self, instance: int) -> int | None:
        """nvidia-ml-py's own call has room for 32 of the 64 bits."""
        amount = ctypes.c_ulonglong(0)
        try:
            function = self._nvml.nvmlLib.nvmlVgpuInstanceGetFbUsage
        except AttributeError:
            return None
        return amount.value if function(ctypes.c_uint(instance), ctypes.byref(amount)) == 0 else None

    def _ask(self, name: str, *arguments: Any) -> Any:
        """The answer; None for what the device, the driver or nvidia-ml-py does not tell."""
        if not hasattr(self._nvml, name):
            return None
        try:
            return self._call(name, *arguments)
        except self._nvml.NVMLError as error:
            if error.value in _GPU_LOST:
                raise _GpuLostError(str(error)) from error
            return None

    def _call(self, name: str, *arguments: Any) -> Any:
        """Texts come as bytes: nvidia-ml-py's own decoding fails on a name that is not UTF-8."""
        function = getattr(self._nvml, name)
        try:
            return getattr(function, "__wrapped__", function)(*arguments)
        except self._nvml.NVMLError as error:
            if error.value in _SESSION_LOST:
                raise _SessionLostError(_words(error)) from error
            raise


def driver_is_there() -> bool:
    """True where the library of NVIDIA's driver can be loaded."""
    try:
        ctypes.CDLL(LIBRARY)
    except OSError:
        return False
    return True


def unread(gpu: Gpu, why: str) -> Gpu:
    """What remains of a device that tells nothing now."""
    return Gpu(
        index=gpu.index,
        uuid=gpu.uuid,
        name=gpu.name,
        pci_address=gpu.pci_address,
        numa_node=gpu.numa_node,
        cores=gpu.cores,
        memory_total_bytes=gpu.memory_total_bytes,
        mig_enabled=gpu.mig_enabled,
        fault=why,
    )


def _words(error: Any) -> str:
    return OLD_LIBRARY if error.value == _LIBRARY_IS_OLD else str(error)


def _tell(reading: NvmlReading) -> None:
    if reading.state == "works":
        log.info("NVIDIA's driver tells of %d GPUs", len(reading.gpus))
    else:
        log.warning("GPUs cannot be read: %s", reading.detail)


def _named(key: _Key) -> Gpu:
    kind, name = key
    return Gpu(
        index=int(name) if kind == "index" else None,
        uuid=str(name) if kind == "uuid" else None,
        pci_address=str(name) if kind == "pci" else None,
    )
