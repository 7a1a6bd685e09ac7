"""Devices and drivers that break, tell nonsense or change: NVIDIA's library is a double."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pynvml
import pytest

from tests.nvml.double import NvmlDouble, gpu, uuid_of
from tests.nvml.test_gpu_reading import MakeReader, read
from vmpack.model.gpu import idle_names
from vmpack.model.gpu_selection import GpuSelection
from vmpack.observe.nvml import RARE_S, Nvml
from vmpack.units import GIB


def test_a_device_that_breaks_us_hides_no_other(
    nvml: NvmlDouble, reader: MakeReader, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One odd device, or a new release of nvidia-ml-py, would leave a host without all its GPUs."""
    nvml.show(gpu(0), gpu(1, utilization=80), gpus=2)
    one = reader()
    read(one)
    whole = pynvml.nvmlDeviceGetTemperature

    def breaks(handle: Any, sensor: int) -> Any:
        if pynvml.nvmlDeviceGetIndex(handle) == 0:
            raise AttributeError("temperature")
        return whole(handle, sensor)

    monkeypatch.setattr(pynvml, "nvmlDeviceGetTemperature", breaks)
    for _ in range(3):
        broken, other = read(one)

    assert (broken.uuid, broken.name) == (uuid_of(0), "NVIDIA Double 80GB")
    assert broken.fault == "a defect in vmpack: AttributeError" and idle_names(broken) == ()
    assert (other.utilization_ratio, other.fault) == (0.8, None)
    assert len([record for record in caplog.records if "please report it" in record.message]) == 1


@pytest.mark.parametrize(
    ("told", "name"),
    [
        ({"power_mw": 10_000_001}, "power_w"),
        ({"power_mw": 2**32 - 1}, "power_w"),
        ({"power_limit_mw": 2**32 - 1}, "power_limit_w"),
        ({"temperature": 201}, "temperature_c"),
        ({"temperature": 2**32 - 51}, "temperature_c"),
        ({"memory_used": 80 * GIB + 1}, "memory_used_bytes"),
        ({"utilization": 101}, "utilization_ratio"),
        ({"encoder": 2**32 - 1}, "encoder_ratio"),
    ],
)
def test_what_cannot_be_is_not_told(
    nvml: NvmlDouble, reader: MakeReader, told: dict[str, int], name: str
) -> None:
    """A driver's slip would raise an alarm, or stand in the cloud's accounting."""
    nvml.show(gpu(0, **told), gpus=1)
    (found,) = read(reader())
    assert getattr(found, name) is None and found.fault is None


def test_a_driver_that_fails_is_tried_in_growing_steps(nvml: NvmlDouble, tmp_path: Path) -> None:
    """A broken driver would be opened every ten seconds for weeks, or not soon after it was mended."""
    nvml.show(gpu(0), gpus=1, driver=999)
    one = Nvml(GpuSelection(), sys=tmp_path, retry_s=10.0)
    tried = []
    for now_s in range(200):
        before = nvml.calls().count("nvmlInitWithFlags")
        one.read(float(now_s))
        if nvml.calls().count("nvmlInitWithFlags") > before:
            tried.append(now_s)
    assert tried == [0, 10, 30, 70, 130, 190]
    nvml.hide("driver")
    nvml.show(session="1")
    assert one.read(250.0).state == "works"
    nvml.show(session="2")
    assert one.read(251.0).state == "failed"
    assert one.read(260.0).state == "failed"
    assert one.read(261.0).state == "works"
    one.close()


def test_rare_values_are_asked_again_after_a_minute(nvml: NvmlDouble, tmp_path: Path) -> None:
    """A new power limit, or errors of its memory, would be seen only after a restart of the agent."""
    nvml.show(gpu(0), gpus=1)
    one = Nvml(GpuSelection(), sys=tmp_path)
    limits = []
    for now_s in (0.0, RARE_S - 1, RARE_S, RARE_S + 1):
        (found,) = one.read(now_s).gpus
        limits.append((found.power_limit_w, found.ecc_uncorrected))
        nvml.show({"0.power_limit_mw": 200_000, "0.ecc_uncorrected": 3})
    assert limits == [(300.0, 0), (300.0, 0), (200.0, 3), (200.0, 3)]
    one.close()
