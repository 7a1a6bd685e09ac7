"""GPUs of real guests, seen by a real agent; NVIDIA's library is a double."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.nvml.double import NvmlDouble, build, gpu
from tests.real.agent_process import AgentProcess
from tests.real.conftest import Boot
from tests.waiting import eventually
from vmpack.lab.guest_spec import GuestSpec
from vmpack.lab.lab import Lab
from vmpack.observe.gpu import HANGS
from vmpack.observe.process import find_qemus
from vmpack.units import MIB


def shown(agent: AgentProcess) -> list[dict[str, Any]]:
    """What `vmpack gpus` tells a script of this agent's host."""
    words = ["gpus", "--json", "--run-dir", str(agent.run_dir)]
    done = subprocess.run(
        [sys.executable, "-m", "vmpack.cli.main", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode in (0, 3), done.stderr
    return list(json.loads(done.stdout)["gpus"])


def users(agent: AgentProcess) -> list[list[str]]:
    """The VMs of each GPU."""
    return [seen["vm_uuids"] for seen in shown(agent)]


def test_a_guests_gpu_is_seen_and_a_broken_one_costs_no_interval(
    lab: Lab, boot: Boot, tmp_path: Path
) -> None:
    """Memory must reach guests whatever a GPU does, and the cloud must see whose GPU is whose."""
    (guest,) = boot(GuestSpec("gpu-1", memory_bytes=160 * MIB))
    uuid = guest.domain.UUIDString()
    pid = find_qemus(Path("/proc"))[uuid].pid
    double = NvmlDouble(tmp_path)
    double.show(gpu(0, compute=f"{pid} 1048576", utilization=42), gpu(1), gpus=2)
    environment = {"LD_LIBRARY_PATH": str(build(tmp_path).parent), "NVML_DOUBLE": str(double.path)}

    with AgentProcess(tmp_path, lab.uri, **environment) as agent:
        agent.ready()
        eventually(
            "the GPU is the guest's", lambda: [gpu["vm_uuids"] for gpu in shown(agent)] == [[uuid], []]
        )
        text = (agent.run_dir / "probe/host-system").read_text()
        assert text.count("GPU=[") == 2
        assert 'GPU_COUNT="2"' in text and f'VMS="{uuid}"' in text
        assert b"vmpack_gpu_utilization_ratio" in agent.client.metrics()
        interval = agent.client.status().interval
        assert interval is not None
        assert interval.plan.offer.gpus == (interval.snapshot.gpus[1].uuid,)

        double.show({"1.lost": 15})
        eventually("the loss is seen", lambda: shown(agent)[1]["fault"] == "GPU is lost")
        assert shown(agent)[0]["fault"] is None

        double.show(hang="nvmlDeviceGetMemoryInfo")
        agent.pass_turns(5)
        eventually("the silence is seen", lambda: {gpu["fault"] for gpu in shown(agent)} == {HANGS})
        assert agent.client.status().last_error is None
        assert agent.stop() == 0
    assert "Traceback" not in agent.log
