"""What `status`, `explain` and `top` tell of vCPUs, against a stand-in for the agent."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from tests.stand_in_agent import StandInAgent, stand_in_agent, told
from tests.vcpu_samples import floating, pcpus, pinned, status, vm

from vmpack.cli.main import main
from vmpack.cli.vcpu_text import plain_lines
from vmpack.cli.watch import CpuWatch
from vmpack.model.vcpu import ThreadMask


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> StandInAgent:
    """The stand-in, where the commands look for the agent; `web` has one vCPU too many on pCPU 0."""
    stand_in = stand_in_agent(monkeypatch)
    stand_in.vcpu_answer = status(
        pcpus(2),
        vm(
            "web",
            pinned(0, 0, 0.5, 0.5),
            floating(1, 1, 0.0),
            threads=(ThreadMask("emulator", 0, (0, 1), "owner"), ThreadMask("iothread", 1, ())),
        ),
        vm("db", pinned(0, 0, 0.475, 0.5), pinned(1, 0, 0.1)),
        vm("cache", pinned(0, 1, 0.05, of="owner"), left_alone="owner_mask"),
    )
    monkeypatch.setenv("COLUMNS", "120")
    return stand_in


def test_explain_tells_where_each_vcpu_may_run_and_who_says_so(
    agent: StandInAgent, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whose a pin is decides whom to ask about it."""
    text = told(["explain", "web"], capsys)

    assert "its vCPUs (balance, active, looked at 2.0 s ago):" in text
    assert "vCPU 0: wants 100 % of a pCPU, waits 50 % of the time; may run on pCPU 1 (was on 0), pin" in text
    assert "vCPU 1: wants 0 % of a pCPU, waits 0 % of the time; may run on any pCPU (was on 1)" in text
    assert "emulator: may run on pCPUs 0-1, pinned by its owner or its cloud" in text
    assert "I/O thread 1: may run on any pCPU" in text


def test_explain_tells_why_a_vcpu_was_moved(agent: StandInAgent, capsys: pytest.CaptureFixture[str]) -> None:
    """`explain` is what makes an administrator trust the machine."""
    text = told(["explain", "web"], capsys)

    assert "vCPU 0 leaves pCPU 0, whose vCPUs want 205 % of it" in text and "[vcpu_moved]" in text
    assert "web: vCPU 0: pCPU 0 -> 1, done" in text
    assert "would change it: more even loads" in text


def test_explain_json_has_the_vcpus(agent: StandInAgent, capsys: pytest.CaptureFixture[str]) -> None:
    """Programs that collect tickets want the same facts."""
    record = json.loads(told(["explain", "web", "--json"], capsys))["vcpus"]

    assert record["mode"] == "balance" and record["age_s"] == 2.0
    first, second = record["vcpus"]
    assert first["demand_ratio"] == 1.0 and first["wait_ratio"] == 0.5 and first["mask_of"] == "vmpack"
    assert second["cpus"] == [] and second["mask_of"] == "nobody" and second["seat"] == 1
    assert record["threads"][0]["mask_of"] == "owner"
    assert {reason["rule"] for reason in record["host_reasons"]} == {"vcpus_spread"}
    assert all("what" in reason for reason in record["reasons"])


def test_without_a_vcpu_loop_the_rest_is_told(
    agent: StandInAgent, capsys: pytest.CaptureFixture[str]
) -> None:
    """Memory must be explained on a host whose agent does not look at vCPUs."""
    agent.vcpu_answer = None

    assert "vCPU" not in told(["explain", "web"], capsys)
    assert json.loads(told(["explain", "web", "--json"], capsys))["vcpus"] is None
    assert "vCPUs" not in told(["status"], capsys)
    assert json.loads(told(["status", "--json"], capsys))["vcpus"] is None
    assert main(["top", "--cpus", "--once"]) == 69
    assert "does not look at vCPUs" in capsys.readouterr().err


def test_status_has_a_line_for_vcpus(agent: StandInAgent, capsys: pytest.CaptureFixture[str]) -> None:
    """One line says whether pCPUs are even, and whether anything is done about it."""
    line = next(line for line in told(["status"], capsys).splitlines() if line.startswith("vCPUs: "))

    assert "balance, uneven by 0.0 points (wanted 5.0), 1 pin changed in the last hour, 3 held; 5" in line
    record = json.loads(told(["status", "--json"], capsys))["vcpus"]
    assert record["mode"] == "balance" and record["pcpus"] == 2 and record["target_points"] == 5.0
    assert record["changed_last_hour"] == 1


def test_status_tells_that_the_vcpu_loop_fails(
    agent: StandInAgent, capsys: pytest.CaptureFixture[str]
) -> None:
    """A loop that fails turn after turn must not look like one that holds still."""
    assert agent.vcpu_answer is not None
    agent.vcpu_answer = replace(agent.vcpu_answer, last_error="libvirt\x1b hangs")

    assert "the newest turn failed: libvirt\\x1b hangs" in told(["status"], capsys)


def test_top_cpus_once_prints_one_screen(agent: StandInAgent, capsys: pytest.CaptureFixture[str]) -> None:
    """For a screenshot or a ticket one look is enough."""
    text = told(["top", "--cpus", "--once"], capsys)

    assert "pCPU load" in text and "cache:0=" in text
    assert "q quits" not in text


def test_top_cpus_plain_is_a_line_a_turn_and_a_line_a_change(agent: StandInAgent) -> None:
    """Logs must show each change once, with its reason."""
    told_lines = plain_lines(agent.vcpu_answer)

    assert "active: balance, 5 vCPUs of 3 VMs on 2 pCPUs, uneven by 0.0 points" in told_lines[0]
    (change,) = told_lines[1:]
    assert "-> 1, done: vCPU 0 leaves pCPU 0" in change
    assert plain_lines(None) == ["the vCPUs have not been looked at yet"]


def test_top_keeps_the_old_page_when_the_agent_goes(agent: StandInAgent) -> None:
    """An agent that restarts must not end the screen that watches it, nor pass for fresh."""
    watch = CpuWatch(agent)  # type: ignore[arg-type]
    assert watch.refresh() is True and watch.refresh() is False
    kept, agent.vcpu_answer = agent.vcpu_answer, None

    assert watch.refresh() is False
    assert watch.status is kept and "old" in watch.trouble
    agent.vcpu_answer = kept
    watch.refresh()
    assert watch.trouble == ""
