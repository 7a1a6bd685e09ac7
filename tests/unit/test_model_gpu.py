"""Which GPUs are idle, which are chosen, and that idle ones are offered."""

from __future__ import annotations

import dataclasses

import pytest
from tests import builders

from vmpack.decide.memory import plan
from vmpack.model.gpu import Gpu, GpuProcess, MigInstance, idle_names
from vmpack.model.gpu_selection import GpuSelection
from vmpack.model.plan import Remembered

IDLE = Gpu(index=0, uuid="GPU-0", pci_address="0000:3b:00.0", processes=())
UUID = "GPU-1d5ae572-11fd-45bb-9a4f-dbfb62edcd5c"


@pytest.mark.parametrize(
    "changes",
    [
        {"processes": (GpuProcess(1),)},
        {"processes": None},
        {"vm_uuids": ("vm",)},
        {"fault": "GPU is lost"},
        {"mig_enabled": True},
    ],
)
def test_a_gpu_is_idle_only_when_that_is_known(changes: dict[str, object]) -> None:
    """A GPU that is given away while somebody uses it, or is broken, costs two users their work."""
    assert idle_names(IDLE) == ("GPU-0",)
    assert idle_names(dataclasses.replace(IDLE, **changes)) == ()  # type: ignore[arg-type]


def test_idle_gpus_are_offered() -> None:
    """The cloud learns from the offer what one more VM could be given."""
    split = Gpu(
        index=1,
        uuid="GPU-1",
        mig_enabled=True,
        mig_instances=(MigInstance(0, uuid="MIG-0", processes=()), MigInstance(1, uuid="MIG-1")),
    )
    apart = Gpu(pci_address="0000:5e:00.0", is_passthrough=True)
    seen = dataclasses.replace(builders.host(builders.guest()), gpus=(IDLE, split, apart))

    assert plan(seen, Remembered(), builders.SETTINGS).offer.gpus == ("GPU-0", "MIG-0", "0000:5e:00.0")


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("all", GpuSelection()),
        ("none", GpuSelection(all=False)),
        ("0, 12", GpuSelection(False, (0, 12))),
        (UUID.upper(), GpuSelection(False, (), (UUID,))),
        ("3B:00.0,00010000:3b:00.0", GpuSelection(False, (), (), ("0000:3b:00.0", "10000:3b:00.0"))),
    ],
)
def test_gpus_are_chosen_by_any_of_their_names(text: str, meant: GpuSelection) -> None:
    """Administrators copy names from nvidia-smi, lspci or libvirt, which write them differently."""
    assert GpuSelection.parse(text) == meant


@pytest.mark.parametrize("text", ["", "al", "0;1", "GPU-1", "3b:00", "-1", "0,,1", "1 2", "all,0"])
def test_anything_else_is_refused(text: str) -> None:
    """A mistyped name that chooses nothing would look like a machine without GPUs."""
    with pytest.raises(ValueError, match="is no GPU's"):
        GpuSelection.parse(text)
