"""What `doctor` says of GPUs. Called by doctor.py and gpus.py; opens the driver for one reading."""

from __future__ import annotations

from collections.abc import Iterator

from vmpack.cli.doctor_checks import Finding
from vmpack.model.gpu import Gpu, idle_names
from vmpack.model.gpu_selection import GpuSelection
from vmpack.observe.gpu import GpuReader
from vmpack.observe.gpu_users import GpuUsers
from vmpack.observe.nvml import NO_MODULE

SUBJECT = "GPUs"
PATIENCE_S = 5.0
"""A driver that takes longer hangs."""
_TODO = {
    NO_MODULE: "run `install.sh agent` again: where the driver is, it installs nvidia-ml-py too",
}
_LOG = "see nvidia-smi and the kernel's log (dmesg | grep NVRM)"


def gpus(devices: str) -> Iterator[Finding]:
    """Which GPUs there are and what of them can be read; `devices` is the configured gpu.devices."""
    selection = GpuSelection.parse(devices)
    if selection.none:
        yield Finding(SUBJECT, "ok", "none is looked at (gpu.devices)")
        return
    reader = GpuReader(selection, deadline_s=PATIENCE_S)
    try:
        found = reader.read_now(GpuUsers({}, {}, is_complete=False))
        driver = reader.driver()
    finally:
        reader.close()
    if driver.state in ("no_module", "failed"):
        yield Finding(
            SUBJECT, "warn", f"GPUs cannot be read: {driver.detail}", _TODO.get(driver.detail, _LOG)
        )
    elif not found and driver.state == "no_driver":
        yield Finding(SUBJECT, "ok", f"none: {driver.detail}, and none is set aside for VMs")
    elif not found:
        yield Finding(SUBJECT, "ok", "none: NVIDIA's driver is loaded but has no GPU")
    for gpu in found if driver.state == "works" else ():
        if gpu.fault is not None and not gpu.is_passthrough:
            yield Finding(SUBJECT, "warn", f"{_name(gpu)} cannot be read: {gpu.fault}", _LOG)
    well = [gpu for gpu in found if gpu.is_passthrough or gpu.fault is None]
    if well:
        yield Finding(SUBJECT, "ok", _sum(well))


def _sum(found: list[Gpu]) -> str:
    apart = sum(gpu.is_passthrough for gpu in found)
    parts = sum(len(gpu.mig_instances) for gpu in found)
    read = len(found) - apart
    words = [f"{read} can be read"] if read else []
    words += [f"{parts} MIG instances"] if parts else []
    words += [f"{sum(len(idle_names(gpu)) for gpu in found)} idle"] if read else []
    words += [f"{apart} set aside for VMs"] if apart else []
    return ", ".join(words)


def _name(gpu: Gpu) -> str:
    return gpu.uuid or gpu.pci_address or f"GPU {gpu.index}"
