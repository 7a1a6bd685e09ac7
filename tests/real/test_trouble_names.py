"""VMs with names that mean something to a shell, to XML, to Prometheus or to a terminal."""

from __future__ import annotations

import re
import subprocess
import sys
import unicodedata
from collections.abc import Iterator

import libvirt
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.opennebula import template
from tests.real.agent_process import QUICK, AgentProcess, packed
from tests.real.paused import start_paused
from tests.waiting import PATIENCE_S, eventually
from vmpack.lab.guest_spec import GuestSpec
from vmpack.lab.lab import Lab, LabGuest
from vmpack.publish.journal import JournalLine
from vmpack.replay.segments import read_segments
from vmpack.units import MIB

BOOTED = 'q"$(id)<&>\u202e'
ASLEEP = (
    "x" * 200,
    " rocket \U0001f680 \u0645\u0631\u062d\u0628\u0627 a\u0300\u0301 ",
    "it's `id`; reboot",
    'b]]>\\" }=1',
    "tab\tdelete\x7f",
    "two\n08:00:00 lines",
    "-rf %s%n{0}",
    "one-17",
)
NAMES = {BOOTED, *ASLEEP}


@pytest.fixture(scope="module")
def booted(lab: Lab) -> Iterator[LabGuest]:
    """One booted guest; beside it those that are paused before their first instruction, which cost little."""
    (started,) = lab.start(GuestSpec(BOOTED, memory_bytes=160 * MIB, stats_period_s=1))
    lab.wait_ready()
    paused = [start_paused(lab, name) for name in ASLEEP]
    yield started
    started.destroy()
    for domain in paused:
        domain.destroy()


@pytest.fixture(scope="module")
def agent(lab: Lab, booted: LabGuest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    """An agent that has packed the booted one."""
    folder = tmp_path_factory.mktemp("agent")
    config = QUICK + f'[publish]\ntextfile_dir = "{folder}"\n'
    with AgentProcess(folder, lab.uri, config=config) as running:
        running.ready()
        eventually("the booted one is packed", lambda: packed(booted))
        running.pass_turns(2)
        yield running


def test_libvirt_itself_refuses_names_that_are_paths(lab: Lab) -> None:
    """Files are named after VMs. Only a slash is refused for all of them: even a new line is not."""
    with pytest.raises(libvirt.libvirtError, match="cannot contain '/'"):
        start_paused(lab, "../b")


def test_probe_texts_stay_within_opennebulas_grammar(agent: AgentProcess) -> None:
    """One quote too many makes OpenNebula refuse all of it; a VM that is not its own may not pass for one."""
    host, vms = (
        template.parse((agent.run_dir / "probe" / name).read_text())
        for name in ("host-system", "vm-snapshot")
    )

    assert template.first(host, "VMPACK_STATE") == "ACTIVE"
    assert [block["ID"] for block in template.vectors(vms, "VM")] == ["17"]


def test_metrics_carry_the_very_names(agent: AgentProcess) -> None:
    """Prometheus drops a whole scrape for one label it cannot read."""
    for text in (agent.client.metrics().decode(), agent.config_path.with_name("vmpack.prom").read_text()):
        names = {
            sample.labels["name"]
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if family.name == "vmpack_guest_balloon_bytes"
        }
        assert names == NAMES


def test_the_journal_replays_with_the_very_names(agent: AgentProcess) -> None:
    """What cannot be read again cannot be proven."""
    agent.client.freeze(True)
    done = vmpack("replay", str(agent.state_dir / "journal"))
    assert done.returncode == 0, done.stdout + done.stderr
    intervals = [
        record for record in read_segments(agent.state_dir / "journal") if isinstance(record, JournalLine)
    ]
    assert {guest.name for guest in intervals[-1].snapshot.guests} == NAMES


def vmpack(*arguments: str) -> subprocess.CompletedProcess[str]:
    """One command line, to its end."""
    argv = [sys.executable, "-m", "vmpack.cli.main", *arguments]
    return subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE_S, check=False)


def check_printable(text: str) -> None:
    """Nothing in it may steer a terminal, turn the rest of a line around, or begin a line of its own."""
    bad = [char for char in text if unicodedata.category(char)[0] == "C" and char != "\n"]
    assert not bad, bad
    assert "\n08:00:00 lines" not in text


@pytest.mark.parametrize(
    "command", [["status"], ["top", "--once"], ["explain", BOOTED], ["release", "--all", "--dry-run"]]
)
def test_what_people_read_stays_one_line_a_name_and_moves_no_cursor(
    command: list[str], agent: AgentProcess
) -> None:
    """A VM's owner could make the administrator's screen say what he likes."""
    done = vmpack(*command, "--run-dir", str(agent.run_dir))

    assert done.returncode == 0, done.stderr
    check_printable(done.stdout + done.stderr)


def test_the_log_keeps_one_line_a_move(agent: AgentProcess) -> None:
    """A name that forges log lines would send the administrator after the wrong VM."""
    check_printable(agent.log)
    assert all(re.match(r"\d\d:\d\d:\d\d ", line) for line in agent.log.splitlines())
    assert 'q"$(id)<&>' in agent.log


@pytest.mark.parametrize("name", [BOOTED, *ASLEEP])
def test_every_vm_can_be_named_by_what_it_is_called(name: str, agent: AgentProcess) -> None:
    """A VM that cannot be named cannot be held, released or explained."""
    assert agent.client.explain(name).guest.name == name
