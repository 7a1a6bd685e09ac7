"""The double as fixtures: `nvml` within this process, `nvml_environment` for programs."""

from __future__ import annotations

import _ctypes
import ctypes
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pynvml
import pytest

from tests.nvml.double import NAME, NvmlDouble, build
from vmpack.model.gpu_selection import GpuSelection
from vmpack.observe.gpu import GpuReader


@pytest.fixture(scope="session")
def nvml_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The double, built once."""
    return build(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def nvml(nvml_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[NvmlDouble]:
    """The double, in place of NVIDIA's library: whoever asks the loader for that name gets this one."""
    double = NvmlDouble(tmp_path)
    monkeypatch.setenv("NVML_DOUBLE", str(double.path))
    ctypes.CDLL(str(nvml_library))
    yield double
    pynvml.nvmlLib = None
    pynvml._nvmlGetFunctionPointer_cache.clear()
    _unload()


def _unload() -> None:
    """However often it was opened: the tests after this one are to meet a machine without a driver."""
    while True:
        try:
            handle = _ctypes.dlopen(NAME, os.RTLD_NOW | os.RTLD_NOLOAD)
        except OSError:
            return
        _ctypes.dlclose(handle)
        _ctypes.dlclose(handle)


@pytest.fixture
def reader(nvml: NvmlDouble, tmp_path: Path) -> Iterator[Callable[..., GpuReader]]:
    """Makes readers over the double and an empty sysfs; at the end their threads are gone."""
    made: list[GpuReader] = []

    def make(devices: str = "all", **options: float) -> GpuReader:
        one = GpuReader(GpuSelection.parse(devices), sys=tmp_path / "sys", **options)  # type: ignore[arg-type]
        made.append(one)
        return one

    yield make
    nvml.show(hang="nothing")
    for one in made:
        one.close()
        one.join()


@pytest.fixture
def nvml_environment(nvml_library: Path, tmp_path: Path) -> tuple[NvmlDouble, dict[str, str]]:
    """A double for a program of its own, and what is to be in that program's environment."""
    double = NvmlDouble(tmp_path)
    return double, {"LD_LIBRARY_PATH": str(nvml_library.parent), "NVML_DOUBLE": str(double.path)}
