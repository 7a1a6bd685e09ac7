"""Programs of their own that load the double as they would load NVIDIA's library."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.nvml.double import NvmlDouble, gpu, uuid_of
from tests.waiting import PATIENCE_S

Environment = tuple[NvmlDouble, dict[str, str]]
NO_LIBVIRT = "qemu+unix:///system?socket=/nonexistent"
WITHOUT_MODULE = "import sys; sys.modules['pynvml'] = None; "
IMPATIENT = "import sys; from vmpack.cli import gpu_checks; gpu_checks.PATIENCE_S = 0.1; "
DOCTOR = "from vmpack.cli.main import main; sys.exit(main(sys.argv[1:]))"


def gpu_findings(tmp_path: Path, environment: dict[str, str], before: str = "import sys; ") -> list[Any]:
    """What `vmpack doctor` says of GPUs, in this environment."""
    words = [
        "doctor",
        "--json",
        "--connect",
        NO_LIBVIRT,
        "--run-dir",
        str(tmp_path),
    ]
    done = subprocess.run(
        [sys.executable, "-c", before + DOCTOR, *words],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return [finding for finding in json.loads(done.stdout)["findings"] if finding["subject"] == "GPUs"]


def test_the_doctor_counts_gpus(nvml_environment: Environment, tmp_path: Path) -> None:
    """Before a GPU host is put to work its administrator asks whether vmpack sees what is there."""
    double, environment = nvml_environment
    double.show(gpu(0), gpu(1, compute="4711 1024"), gpus=2)

    (finding,) = gpu_findings(tmp_path, environment)

    assert (finding["level"], finding["text"]) == ("ok", "2 can be read, 1 idle")


def test_the_doctor_names_a_lost_gpu(nvml_environment: Environment, tmp_path: Path) -> None:
    """A broken GPU is found by looking, not by a VM that fails to start."""
    double, environment = nvml_environment
    double.show(gpu(0), {"1.uuid": uuid_of(1), "1.lost": 15}, gpus=2)

    lost, well = gpu_findings(tmp_path, environment)

    assert (lost["level"], well["text"]) == ("warn", "1 can be read, 1 idle")
    assert "GPU is lost" in lost["text"] and lost["todo"]


def test_a_missing_module_is_a_finding(nvml_environment: Environment, tmp_path: Path) -> None:
    """The core is installed without nvidia-ml-py: that is to be said with the cure, not by a traceback."""
    double, environment = nvml_environment
    double.show(gpu(0), gpus=1)

    (finding,) = gpu_findings(tmp_path, environment, WITHOUT_MODULE)

    assert finding["level"] == "warn" and "nvidia-ml-py is not installed" in finding["text"]
    assert "install.sh" in finding["todo"]


def test_a_driver_that_hangs_is_a_finding(nvml_environment: Environment, tmp_path: Path) -> None:
    """The doctor is called when something hangs; it must not hang with it."""
    double, environment = nvml_environment
    double.show(gpu(0), gpus=1, hang="nvmlInitWithFlags")

    (finding,) = gpu_findings(tmp_path, environment, IMPATIENT)

    assert finding["level"] == "warn" and "gives no answer" in finding["text"]


@pytest.mark.parametrize("library", [True, False])
def test_the_module_is_loaded_only_where_a_driver_is(
    library: bool, nvml_environment: Environment, tmp_path: Path
) -> None:
    """It costs every agent memory, and most hosts have no GPU."""
    double, environment = nvml_environment
    double.show(gpu(0), gpus=1)
    script = (
        "import sys; from vmpack.observe import nvml;"
        "from vmpack.model.gpu_selection import GpuSelection as S;"
        "n = nvml.Nvml(S()); n.read(0.0); print('pynvml' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | (environment if library else {}),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == str(library)
