"""`vmpack explain` of a VM's memory, against a stand-in for the agent."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from tests.cli_samples import EVIL_NAME, guest, guest_plan, interval, status
from tests.stand_in_agent import WEB, StandInAgent, stand_in_agent, told

from vmpack.model.guest import MemoryStats
from vmpack.model.plan import Reason
from vmpack.units import MIB


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> StandInAgent:
    """The stand-in."""
    return stand_in_agent(monkeypatch)


def test_explain_gives_words_numbers_and_the_cure(
    agent: StandInAgent, capsys: pytest.CaptureFixture[str]
) -> None:
    """`explain` is what makes an administrator trust the machine."""
    numbers = {"balloon_bytes": 192 * MIB, "target_bytes": 128 * MIB, "calm_s": 5.0, "needed_s": 30.0}
    plan = guest_plan("web")._replace(reasons=(Reason("not_calm_yet", numbers),))
    stats = MemoryStats(999.0, 220 * MIB, 150 * MIB)
    agent.answer = status(interval((replace(WEB, stats=stats),), (plan,)))
    text = told(["explain", "web"], capsys)

    assert "web: stays at 192 MiB" in text
    assert "150 MiB" in text
    assert "5.0 s of 30.0 s" in text and "[not_calm_yet]" in text
    assert "memory.calm_s" in text.partition("would change it:")[2]
    reasons = json.loads(told(["explain", "web", "--json"], capsys))["reasons"]
    assert reasons[0]["numbers"] == numbers and reasons[0]["change"]


def test_explain_tells_what_was_learned(agent: StandInAgent, capsys: pytest.CaptureFixture[str]) -> None:
    """Room that is kept for last night's jump would be a riddle."""
    assert "what was learned" not in told(["explain", "web"], capsys)
    agent.learned = (Reason("learned_floor", {"kept_bytes": 150 * MIB, "left_s": 300.0}),)

    assert "what was learned of it:\n  - its balloon stopped at 150 MiB" in told(["explain", "web"], capsys)
    (record,) = json.loads(told(["explain", "web", "--json"], capsys))["learned"]
    assert record["rule"] == "learned_floor" and record["numbers"]["kept_bytes"] == 150 * MIB


def test_explain_tells_what_of_a_policy_is_not_used(
    agent: StandInAgent, capsys: pytest.CaptureFixture[str]
) -> None:
    """An owner's typing error would silently mean the host's defaults."""
    agent.answer = status(interval((replace(WEB, policy_faults=("shares: 'many' is no number",)),)))

    assert "shares: 'many' is no number" in told(["explain", "web"], capsys)


def test_explain_escapes_the_name(agent: StandInAgent, capsys: pytest.CaptureFixture[str]) -> None:
    """A hostile name must not reach the terminal here either."""
    agent.answer = status(interval((guest(EVIL_NAME),)))

    assert "\x1b" not in told(["explain", "x"], capsys)
