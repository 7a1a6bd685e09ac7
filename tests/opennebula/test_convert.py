"""Converting a live host against the double of oned: what changes, what is refused, what is put back."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
from typing import Any

import pytest

from tests import builders, intervals
from tests.fake_vms import FakeClock
from tests.opennebula.conftest import FrontEnd
from tests.opennebula.host_record import VmRecord
from tests.opennebula.oned import ADMIN, NO_EXISTS, Oned
from tests.opennebula.oned_objects import OnedHost
from tests.opennebula.template import first, parse
from tests.waiting import eventually
from vmpack.cli.main import main
from vmpack.clouds import opennebula_convert
from vmpack.clouds.opennebula_convert import ConversionPlan, Converter, Drivers
from vmpack.errors import CloudError, CloudGoneError, UsageError
from vmpack.model.gpu import Gpu
from vmpack.publish import probe_text
from vmpack.publish.probe_text import ProbeSettings

OURS = Drivers("vmpack", "vmpack")
CONFIG = "<OPENNEBULA_CONFIGURATION>{}</OPENNEBULA_CONFIGURATION>"


class Direct:
    """The double as the client that Converter needs, without a network."""

    def __init__(self, oned: Oned) -> None:
        self._oned = oned

    def text(self, method: str, *arguments: object) -> str:
        """See Client."""
        return str(self._ask(method, arguments))

    def number(self, method: str, *arguments: object) -> int:
        """See Client."""
        return int(self._ask(method, arguments))

    def _ask(self, method: str, arguments: tuple[object, ...]) -> Any:
        answer = self._oned.answer(f"one.{method}", (ADMIN, *arguments))
        if not answer[0]:
            kind = CloudGoneError if answer[2] == NO_EXISTS else CloudError
            raise kind(str(answer[1]))
        return answer[1]


class Scene:
    """A host with two VMs, and a monitord that knows some drivers."""

    def __init__(self, oned: Oned, monitored: tuple[str, ...] = ("kvm", "vmpack")) -> None:
        self.oned = oned
        knows(oned, "kvm", "qemu", "vmpack")
        self.host = oned.add_host("node-a", 4096, im_mad="kvm")
        for name in ("one", "two"):
            oned.add_vm(name, 512, self.host)
        self.clock = FakeClock()
        self.clock.each_step.append(lambda _seconds: monitord(self.host, monitored))
        self.said: list[str] = []
        self.converter = Converter(Direct(oned), self.clock, self.said.append)

    def plan(self, wanted: Drivers | None = OURS) -> ConversionPlan:
        """See Converter."""
        return self.converter.plan("node-a", wanted)

    @property
    def now(self) -> tuple[str, str, str]:
        """The host's drivers and state."""
        return self.host.im_mad, self.host.vm_mad, self.host.record.state


def knows(oned: Oned, *names: str) -> None:
    """Let oned.conf have these VM_MADs."""
    entries = "".join(f"<VM_MAD><NAME><![CDATA[{name}]]></NAME></VM_MAD>" for name in names)
    oned.raw["one.system.config"] = [True, CONFIG.format(entries), 0]


def monitord(host: OnedHost, monitored: tuple[str, ...]) -> None:
    """A monitord that starts a host whose driver it knows, and calls the others failed."""
    if host.record.state == "INIT":
        host.record.state = "MONITORED" if host.im_mad in monitored else "ERROR"


@pytest.fixture
def scene(oned: Oned) -> Scene:
    """A plain kvm host."""
    return Scene(oned)


def test_a_live_host_gets_our_drivers_and_its_vms_keep_theirs(scene: Scene) -> None:
    """A host with VMs could not be packed without emptying it first."""
    stays = [list(vm.stays) for vm in scene.oned.vms.values()]
    done = scene.converter.carry_out(scene.plan(), 300)
    assert (done.status, done.now) == ("done", OURS)
    assert scene.now == ("vmpack", "vmpack", "MONITORED")
    assert [vm.stays for vm in scene.oned.vms.values()] == stays
    assert [driver for _, driver in done.vms] == ["kvm", "kvm"]


def test_it_goes_offline_before_and_waits_for_the_old_client(scene: Scene) -> None:
    """The old monitoring client would run on beside the new one, or the new one never start."""
    scene.converter.carry_out(scene.plan(), 300)
    changes = [call for call in scene.oned.calls if call[0] in ("host.status", "host.update")]
    assert [call[0] for call in changes] == ["host.status", "host.update", "host.status"]
    assert (changes[0][2], changes[1][3], changes[2][2]) == (2, 1, 0)
    assert scene.clock.now_s >= 1000 + opennebula_convert.PAUSE_S


@pytest.mark.parametrize("before", ["kvm", "qemu"])
def test_back_gives_the_drivers_that_it_had(oned: Oned, before: str) -> None:
    """A host of another driver than kvm would come back with one that it cannot use."""
    scene = Scene(oned, monitored=("kvm", "qemu", "vmpack"))
    scene.host.im_mad = scene.host.vm_mad = before
    scene.converter.carry_out(scene.plan(), 300)
    scene.converter.carry_out(scene.plan(Drivers("vmpack", "kvm")), 300)
    done = scene.converter.carry_out(scene.plan(None), 300)
    assert done.status == "done"
    assert scene.now == (before, before, "MONITORED")
    assert first(scene.host.record.template, "VMPACK_IM_MAD_BEFORE") in (None, "")


def test_what_our_probes_told_does_not_outlive_them(scene: Scene) -> None:
    """Schedulers would go on to rank the host by memory that was packed months ago."""
    before = dict(scene.host.record.template)
    scene.converter.carry_out(scene.plan(), 300)
    settings = ProbeSettings(builders.MACHINE, 0, intervals.VERSION, observe_only=False)
    turn = intervals.interval(intervals.guest(1, "one-10"))
    gpus = (Gpu(index=0, uuid="GPU-0", memory_total_bytes=1 << 30),)
    turn = dataclasses.replace(turn, snapshot=dataclasses.replace(turn.snapshot, gpus=gpus))
    text = probe_text.render(turn, settings)["host-system"]
    scene.oned.answer("one.host.update", (ADMIN, scene.host.id, text, 1))
    assert first(scene.host.record.template, "GPU_COUNT") == "1"
    scene.converter.carry_out(scene.plan(None), 300)
    stock = {"TOTALCPU", "TOTALMEMORY", "HYPERVISOR", "CPUSPEED", "CGROUPS_VERSION", "IM_MAD", "VM_MAD"}
    assert dict(scene.host.record.template).keys() <= before.keys() | stock


def test_a_grant_that_comes_meanwhile_does_not_become_the_administrators(scene: Scene) -> None:
    """A pass of `vmpack grant` in that minute would leave the host overcommitted with nobody to undo it."""
    scene.converter.carry_out(scene.plan(), 300)
    scene.oned.answer("one.host.update", (ADMIN, scene.host.id, 'RESERVED_MEM="1024"', 1))
    plan = scene.plan(None)
    ours = 'RESERVED_MEM="-4096"\nVMPACK_RESERVED_SET="-4096"\nVMPACK_RESERVED_BASE="1024"'
    scene.oned.answer("one.host.update", (ADMIN, scene.host.id, ours, 1))
    assert scene.converter.carry_out(plan, 300).status == "done"
    assert scene.oned.told(scene.host, "RESERVED_MEM") == "1024"
    assert not [name for name in dict(scene.host.record.template) if name.startswith("VMPACK_")]


def test_what_an_administrator_wrote_himself_is_not_taken_away(oned: Oned) -> None:
    """A host that could not be converted would lose the GPU_COUNT that its VMs' requirements ask for."""
    scene = Scene(oned, monitored=("kvm",))
    oned.answer("one.host.update", (ADMIN, scene.host.id, 'GPU_COUNT="4"', 1))
    assert scene.converter.carry_out(scene.plan(), 300).status == "failed"
    assert first(scene.host.record.template, "GPU_COUNT") == "4"


def test_owners_no_longer_see_what_no_longer_holds(scene: Scene) -> None:
    """A guest's own tools would go by a floor and a target that nobody keeps any more."""
    scene.converter.carry_out(scene.plan(), 300)
    told = parse('LABELS="web"\nVMPACK_FLOOR="512"\nVMPACK_APPLIED_FLOOR="1"\nVMPACK_APPLIED_TARGET="2"')
    one, two = scene.oned.vms.values()
    one.user_template, two.user_template = list(told), list(told)
    two.locked = True
    done = scene.converter.carry_out(scene.plan(None), 300)
    assert done.status == "done" and f"could not be taken from VMs {two.id}" in done.detail
    assert dict(one.user_template) == {"LABELS": "web", "VMPACK_FLOOR": "512"}


def test_what_is_so_already_is_not_touched(scene: Scene) -> None:
    """Each run of a script would take the host offline again."""
    scene.converter.carry_out(scene.plan(), 300)
    calls = len(scene.oned.calls)
    assert scene.converter.carry_out(scene.plan(), 300).status == "nothing"
    assert not [call for call in scene.oned.calls[calls:] if call[0] in ("host.status", "host.update")]
    scene.converter.carry_out(scene.plan(None), 300)
    assert scene.converter.carry_out(scene.plan(None), 300).status == "nothing"


def test_a_host_that_cannot_be_monitored_so_gets_its_old_drivers_back(oned: Oned) -> None:
    """A host would stay in ERROR with all its VMs UNKNOWN because monitord was not restarted."""
    scene = Scene(oned, monitored=("kvm",))
    done = scene.converter.carry_out(scene.plan(), 300)
    assert done.status == "failed" and done.now == Drivers("kvm", "kvm")
    assert scene.now == ("kvm", "kvm", "MONITORED")


def test_a_host_that_nobody_monitors_gets_its_old_drivers_back_in_time(oned: Oned) -> None:
    """The command would wait for ever, and the host with it."""
    scene = Scene(oned)
    scene.clock.each_step.clear()
    done = scene.converter.carry_out(scene.plan(), 30)
    assert done.status == "failed" and "within 30 s" in done.detail
    assert scene.now == ("kvm", "kvm", "INIT")


@pytest.mark.parametrize("method", ["host.update", "host.info"])
def test_whatever_fails_on_the_way_the_host_is_not_left_offline(scene: Scene, method: str) -> None:
    """A host would stay offline after one refused call: nothing on it is watched, restarted or scheduled."""
    plan = scene.plan()
    failures = iter([True])

    def fails_once() -> None:
        if next(failures, False):
            raise CloudError("refused")

    scene.oned.before[f"one.{method}"] = fails_once
    with pytest.raises(CloudError):
        scene.converter.carry_out(plan, 300)
    monitord(scene.host, ("kvm",))
    assert scene.now == ("kvm", "kvm", "MONITORED")


def test_ctrl_c_on_the_way_puts_it_back(scene: Scene) -> None:
    """A person who loses patience would leave a host offline or half converted."""
    plan = scene.plan()
    interrupts = iter([False, True])

    def impatient(_seconds: float) -> None:
        if next(interrupts, False):
            raise KeyboardInterrupt

    scene.clock.each_step[:] = [impatient]
    with pytest.raises(KeyboardInterrupt):
        scene.converter.carry_out(plan, 300)
    monitord(scene.host, ("kvm",))
    assert scene.now == ("kvm", "kvm", "MONITORED")


@pytest.mark.parametrize(("state", "after"), [("DISABLED", "DISABLED"), ("OFFLINE", "OFFLINE")])
def test_a_host_out_of_service_stays_so(scene: Scene, state: str, after: str) -> None:
    """A host in maintenance would be given VMs."""
    scene.host.record.state = state
    done = scene.converter.carry_out(scene.plan(), 300)
    assert done.status == "done"
    assert scene.now == ("vmpack", "vmpack", after)


class TestRefusals:
    """What is said before anything is changed."""

    def test_a_driver_that_oned_does_not_know(self, scene: Scene) -> None:
        """No VM could be started on the host any more."""
        knows(scene.oned, "kvm")
        (refusal,) = scene.plan().refusals
        assert "install.sh opennebula --edit" in refusal and "restart" in refusal
        assert not scene.plan(Drivers("vmpack", "kvm")).refusals

    def test_a_host_in_error(self, scene: Scene) -> None:
        """A broken host would look as if vmpack had broken it."""
        scene.host.record.state = "ERROR"
        assert scene.plan().refusals

    def test_a_host_in_error_may_always_go_back(self, scene: Scene) -> None:
        """A host whose trouble is vmpack could not be freed from it."""
        scene.converter.carry_out(scene.plan(), 300)
        scene.host.record.state = "ERROR"
        assert not scene.plan(None).refusals

    def test_a_vm_that_is_being_moved(self, scene: Scene) -> None:
        """An action under way would end on a host that reports nothing."""
        next(iter(scene.oned.vms.values())).lcm_state = 4
        assert "wait for it" in scene.plan().refusals[0]

    def test_memory_that_is_granted_goes_first(self, scene: Scene) -> None:
        """The scheduler would fill memory that nobody packs any more, and the timer would grant it anew."""
        scene.converter.carry_out(scene.plan(), 300)
        scene.oned.answer(
            "one.host.update", (ADMIN, scene.host.id, 'VMPACK_RESERVED_SET="-1"\nRESERVED_MEM="-1"', 1)
        )
        refusal = scene.plan(None).refusals[0]
        assert "vmpack grant node-a --off" in refusal
        assert "vmpack-grant.timer" in refusal

    def test_marks_of_a_grant_that_somebody_overwrote_hold_nothing_up(self, scene: Scene) -> None:
        """The host could never be converted back: there is no grant that could be taken back first."""
        scene.converter.carry_out(scene.plan(), 300)
        marks = 'VMPACK_RESERVED_SET="-1"\nVMPACK_RESERVED_BASE="5"\nRESERVED_MEM="7"'
        scene.oned.answer("one.host.update", (ADMIN, scene.host.id, marks, 1))
        assert not scene.plan(None).refusals
        assert scene.converter.carry_out(scene.plan(None), 300).status == "done"
        assert scene.oned.told(scene.host, "RESERVED_MEM") == "7"
        assert not {"VMPACK_RESERVED_SET", "VMPACK_RESERVED_BASE"} & dict(scene.host.record.template).keys()

    def test_a_vm_that_ends_meanwhile_holds_nothing_up(self, scene: Scene) -> None:
        """On a busy cloud some VM always ends between two calls."""
        scene.host.record.vms[99] = VmRecord(64)
        assert [number for number, _ in scene.plan().vms] == list(scene.oned.vms)

    def test_an_unknown_host_is_told_with_those_there_are(self, scene: Scene) -> None:
        """A mistyped name would end in a message of oned's about a number."""
        with pytest.raises(UsageError) as raised:
            scene.converter.plan("node-x", OURS)
        assert "node-a" in raised.value.hint

    @pytest.mark.parametrize("name", ['a"\nSTATE="x', "", "a b", "x" * 65])
    def test_a_name_that_would_be_more_than_a_name(self, name: str) -> None:
        """A driver's name could carry other attributes into the host's template."""
        with pytest.raises(UsageError):
            opennebula_convert.checked_name(name)

    def test_a_hosts_own_template_is_not_believed(self, scene: Scene) -> None:
        """Whoever can write the template would choose what is written with oneadmin's rights."""
        scene.converter.carry_out(scene.plan(), 300)
        text = 'VMPACK_IM_MAD_BEFORE="x\\"y"\nVMPACK_VM_MAD_BEFORE="a b"'
        scene.oned.answer("one.host.update", (ADMIN, scene.host.id, text, 1))
        assert scene.plan(None).wanted == Drivers("kvm", "kvm")


def test_the_command_says_what_it_did(
    oned: Oned, front_end: FrontEnd, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A person would not know what became of the VMs, and a script not what came of the host."""
    scene = Scene(oned)
    monkeypatch.setattr(opennebula_convert, "PAUSE_S", 0.0)
    monkeypatch.setattr(opennebula_convert, "LOOK_EVERY_S", 0.01)
    oned.before["one.host.info"] = lambda: monitord(scene.host, ("kvm", "vmpack"))
    assert main(["opennebula", "convert", "node-a", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "from kvm/kvm to vmpack/vmpack" in said and "2 VMs on it: actions by the driver kvm" in said
    assert scene.now == ("kvm", "kvm", "MONITORED")
    assert main(["opennebula", "convert", "node-a", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["status"], record["im_mad"], len(record["vms"])) == ("done", "vmpack", 2)
    assert main(["opennebula", "convert", "node-a", "--vm-mad", "nvm"]) == 1
    assert "oned knows no VM_MAD 'nvm'" in capsys.readouterr().out
    oned.before["one.host.info"] = lambda: monitord(scene.host, ("vmpack",))
    assert main(["opennebula", "convert", "node-a", "--back", "--timeout", "1s"]) == 1
    told = capsys.readouterr()
    assert "was not converted" in told.err and "vmpack/vmpack again" in told.err
    assert scene.now == ("vmpack", "vmpack", "MONITORED")


@pytest.mark.parametrize("stop", [signal.SIGHUP, signal.SIGTERM], ids=["terminal closed", "stopped"])
def test_a_stop_on_the_way_puts_it_back(oned: Oned, front_end: FrontEnd, stop: signal.Signals) -> None:
    """A connection that breaks would leave a host offline, and its VMs unwatched."""
    scene = Scene(oned)
    command = [sys.executable, "-m", "vmpack.cli.main", "opennebula", "convert", "node-a"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as running:
        try:
            eventually("it goes offline", lambda: scene.host.record.state == "OFFLINE")
            running.send_signal(stop)
            running.communicate(timeout=120)
        finally:
            running.kill()
    assert running.returncode == 130
    assert scene.now == ("kvm", "kvm", "INIT")
