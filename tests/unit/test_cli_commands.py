"""Each command against a stand-in for the agent: what is asked, what is told, which exit code."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.builders import unreadable
from tests.cli_samples import EVIL_NAME, WALL_S, guest_plan, interval, shrinking, status
from tests.stand_in_agent import WEB, StandInAgent, stand_in_agent, told

from vmpack.cli import status as status_command
from vmpack.cli.main import main
from vmpack.cli.watch import MemoryWatch
from vmpack.decide.release import plan_release
from vmpack.errors import AccessError
from vmpack.host.messages import FreezeState, GivenBack, StillPacked
from vmpack.model.codec import encode
from vmpack.model.guest import GuestPolicy
from vmpack.model.plan import MigrationWanted, Reason, Remembered
from vmpack.model.settings import Settings
from vmpack.model.vcpu import AffinityOutcome, SetAffinity
from vmpack.units import GIB, MIB


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> StandInAgent:
    """The stand-in."""
    return stand_in_agent(monkeypatch)


def test_status_tells_the_host_and_the_vm(agent: StandInAgent, capsys: pytest.CaptureFixture[str]) -> None:
    """The first screen of every user: sums with units, the VM, its verdict."""
    text = told(["status"], capsys)

    for fact in (
        "qemu:///system",
        "memory 4 GiB",
        "budget 3 GiB",
        "packed 64 MiB",
        "offered 700 MiB",
        "pressure 2 %",
    ):
        assert fact in text
    assert "web" in text and "192 MiB" in text and "hold" in text
    assert "data 2.0 s old" in text


def test_status_names_who_is_left_alone_and_why(
    agent: StandInAgent, capsys: pytest.CaptureFixture[str]
) -> None:
    """A VM that is skipped without a reason looks like a defect."""
    agent.answer = status(interval((WEB,), (guest_plan("web", "excluded", None),)))

    assert "web: it cannot be ballooned safely: its memory is huge pages" in " ".join(
        told(["status"], capsys).split()
    )


def test_status_of_an_empty_host(agent: StandInAgent, capsys: pytest.CaptureFixture[str]) -> None:
    """A new host has no VM; that is not an error."""
    agent.answer = status(interval())

    assert "no VM runs on this host" in told(["status"], capsys)


def test_status_before_the_first_interval(agent: StandInAgent, capsys: pytest.CaptureFixture[str]) -> None:
    """Asked right after the start there is nothing to show, and no reason to fail."""
    agent.answer = status(None, started_wall_s=WALL_S)

    assert "no interval has gone through yet" in told(["status"], capsys)
    assert json.loads(told(["status", "--json"], capsys))["vms"] is None


@pytest.mark.parametrize(
    ("changes", "word"),
    [({"last_error": "libvirt is gone"}, "libvirt is gone"), ({"interval_s": -10.0}, "hangs or stopped")],
)
def test_status_warns_with_its_exit_code(
    changes: dict[str, Any], word: str, agent: StandInAgent, capsys: pytest.CaptureFixture[str]
) -> None:
    """A script that only looks at the code must notice a failing or hanging agent."""
    agent.answer = status(interval((WEB,)), **changes)

    assert word in told(["status"], capsys, 3)


@pytest.mark.parametrize(("observe", "frozen", "state"), [(True, False, "observe"), (True, True, "frozen")])
def test_status_says_when_nothing_changes(
    observe: bool, frozen: bool, state: str, agent: StandInAgent, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody may take an agent for packing that only watches."""
    agent.answer = replace(status(interval((WEB,)), observe_only=observe), frozen=frozen)

    assert json.loads(told(["status", "--json"], capsys))["state"] == state
    assert "changes nothing" in told(["status"], capsys)


def test_status_tells_what_is_wrong_with_the_host(
    agent: StandInAgent, capsys: pytest.CaptureFixture[str]
) -> None:
    """Scarcity, a hung VM and a wanted migration are what the administrator must act on."""
    newest = interval((WEB,))
    plan = replace(
        newest.plan,
        reasons=(Reason("host_over_budget", {"over_bytes": 5 * MIB}),),
        migration=MigrationWanted(30 * MIB, (EVIL_NAME,)),
    )
    agent.answer = status(
        replace(newest, plan=plan, snapshot=replace(newest.snapshot, unreadable=(unreadable("stuck"),)))
    )
    text = told(["status"], capsys, 0)

    assert "5 MiB more than the host's budget" in text
    assert "30 MiB are lacking" in text
    assert "stuck" in text
    assert "\x1b" not in text


def test_status_json_keeps_its_form(agent: StandInAgent, capsys: pytest.CaptureFixture[str]) -> None:
    """Programs are built on these keys; what --help documents must be there, in bytes and seconds."""
    record = json.loads(told(["status", "--json"], capsys))

    assert record["host"]["budget_bytes"] == 3 * GIB
    assert record["age_s"] == pytest.approx(2.0)
    assert record["vms"][0] == {
        "uuid": "uuid-of-web", "name": "web", "state": "running", "nominal_bytes": 256 * MIB,
        "balloon_bytes": 192 * MIB, "used_bytes": 64 * MIB, "target_bytes": 128 * MIB,
        "floor_bytes": 80 * MIB, "minimum_bytes": 96 * MIB, "wanted_bytes": 128 * MIB,
        "packed_bytes": 64 * MIB, "verdict": "hold", "policy": encode(GuestPolicy()), "rule": "released",
    }  # fmt: skip
    for key in ("version", "pid", "uri", "state", "interval_s", "stale", "last_error", *record):
        assert key in status_command.EPILOG
    for key in (*record["host"], *record["vms"][0]):
        assert key in status_command.EPILOG


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        (["--for", "10min"], 600.0),
        ([], None),
        (["--off"], 0.0),
    ],
)
def test_hold_asks_for_the_right_time(
    options: list[str], asked: float | None, agent: StandInAgent, capsys: pytest.CaptureFixture[str]
) -> None:
    """A hold that is too short lets a VM change in the middle of its owner's job."""
    assert "web" in told(["hold", "web", *options], capsys)
    assert agent.asked == [("hold", "web", asked)]


NOTHING_SET = {
    "floor_bytes": None,
    "shares": None,
    "headroom_ratio": None,
    "headroom_min_bytes": None,
    "opt_out": False,
}


@pytest.mark.parametrize(
    ("options", "changes"),
    [
        (["--floor", "100MiB", "--shares", "2000"], {"floor_bytes": 100 * MIB, "shares": 2000}),
        (["--headroom", "30%"], {"headroom_ratio": 0.3}),
        (["--opt-out"], {"opt_out": True}),
        (["--opt-in"], {"opt_out": False}),
        (["--headroom-min", "64MiB"], {"headroom_min_bytes": 64 * MIB}),
        (["--reset"], NOTHING_SET),
        (["--of-owner"], NOTHING_SET | {"of_owner": []}),
        (
            ["--of-owner", "--shares", "7", "--nominal", "1GiB"],
            NOTHING_SET | {"shares": 7, "of_owner": ["shares"], "nominal_bytes": 1024 * MIB},
        ),
        (
            ["--reset", "--floor", "100MiB", "--opt-out"],
            NOTHING_SET | {"floor_bytes": 100 * MIB, "opt_out": True},
        ),
    ],
)
def test_policy_changes_only_what_is_named(
    options: list[str], changes: dict[str, Any], agent: StandInAgent, capsys: pytest.CaptureFixture[str]
) -> None:
    """Setting the shares must not silently forget the floor."""
    assert "floor 100 MiB, shares 2000" in told(["policy", "web", *options], capsys)
    assert agent.asked == [("set_policy", "web", changes)]


def test_policy_without_options_changes_nothing(
    agent: StandInAgent, capsys: pytest.CaptureFixture[str]
) -> None:
    """Looking must be safe."""
    assert "nothing of its own" in told(["policy", "web"], capsys)
    assert agent.asked == []


@pytest.mark.parametrize("wrong", [["--floor", "12parsecs"], ["--headroom", "much"], ["--headroom", "3%%"]])
def test_wrong_amounts_are_usage_errors(
    wrong: list[str], agent: StandInAgent, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mistyped unit must be told, with an example or the units there are."""
    with pytest.raises(SystemExit) as ended:
        main(["policy", "web", *wrong])

    assert ended.value.code == 2
    assert "write for example" in (text := capsys.readouterr().err) or "use KiB" in text
    assert agent.asked == []


@pytest.mark.parametrize(("came_of_it", "code"), [("done", 0), ("partial", 3), ("skipped", 1), ("failed", 1)])
def test_balloon_ends_with_what_came_of_it(
    came_of_it: Any, code: int, agent: StandInAgent, capsys: pytest.CaptureFixture[str]
) -> None:
    """A script must see whether the size was reached."""
    agent.outcome = replace(agent.outcome, status=came_of_it, detail="why")

    assert "192 MiB to 200 MiB" in told(["balloon", "web", "200MiB"], capsys, code)
    assert agent.asked == [("balloon", "web", 200 * MIB)]


def test_release_all_says_what_stays_packed(agent: StandInAgent, capsys: pytest.CaptureFixture[str]) -> None:
    """On an overcommitted host the rest must be said aloud, with what would clear it."""
    agent.given = GivenBack(64 * MIB, (), (StillPacked("u", "web", 32 * MIB, "no room", "move a VM"),))
    text = told(["release", "--all"], capsys, 3)

    assert agent.asked == [("release", None)]
    assert "given back: 64 MiB" in text
    assert "web stays packed by 32 MiB: no room" in text and "move a VM" in text
    assert "frozen" in text


def test_release_of_one_vm_does_not_speak_of_freezing(
    agent: StandInAgent, capsys: pytest.CaptureFixture[str]
) -> None:
    """Releasing one VM leaves the others as they were."""
    text = told(["release", "web"], capsys)

    assert agent.asked == [("release", "web")]
    assert "frozen" not in text


def test_a_failed_release_is_a_failure(agent: StandInAgent, capsys: pytest.CaptureFixture[str]) -> None:
    """The service manager must know that memory was not given back."""
    agent.given = GivenBack(0, (replace(agent.outcome, status="failed"),), ())

    told(["release", "--all"], capsys, 1)


def test_a_release_tells_of_pins(agent: StandInAgent, capsys: pytest.CaptureFixture[str]) -> None:
    """A VM that is still bound to one CPU must not be found by its slowness."""
    bound = SetAffinity("u", "web", "vcpu", 1, (3,), (), gives_back=True)
    outcomes = AffinityOutcome(bound, "done"), AffinityOutcome(bound, "failed", "no such CPU")
    agent.given = GivenBack(0, (), (), outcomes)
    text = told(["release", "--all"], capsys, 1)

    assert "web: vCPU 1: pCPU 3 -> as before vmpack, failed (no such CPU)" in text
    assert "pins of vCPUs taken off: 1 of 2" in text


def test_release_dry_run_asks_for_no_change(agent: StandInAgent, capsys: pytest.CaptureFixture[str]) -> None:
    """A dry run that changes something is the worst of lies."""
    newest = interval((WEB,))
    remembered = plan_release(newest.snapshot, Remembered(), Settings(), None).remembered
    agent.answer = status(replace(newest, plan=replace(newest.plan, remembered=remembered)))

    assert "nothing was changed" in told(["release", "--all", "--dry-run"], capsys)
    assert "actions" in json.loads(told(["release", "web", "--dry-run", "--json"], capsys))
    assert agent.asked == []


def test_freeze_through_the_agent(agent: StandInAgent, capsys: pytest.CaptureFixture[str]) -> None:
    """The emergency stop must reach the agent."""
    assert "nothing changes until" in told(["freeze"], capsys)
    assert "allowed again" in told(["freeze", "--off"], capsys)
    assert agent.asked == [("freeze", True), ("freeze", False)]


def test_a_freeze_that_nobody_confirmed_is_told_as_that(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Beside an agent that runs elsewhere, "frozen" would be a lie that its owner finds out too late."""
    mark = tmp_path / "state" / "frozen"
    where = ["--socket", str(tmp_path / "none.sock"), "--state-dir", str(mark.parent)]

    text = told(["freeze", *where], capsys, 3)
    assert f"marked as frozen: {mark.parent}" in text and "no running agent confirmed it" in text
    assert mark.exists()
    record = json.loads(told(["freeze", "--json", *where], capsys, 3))
    assert record == {"frozen": True, "agent": False, "state_dir": str(mark.parent)}
    assert f"no longer marked as frozen: {mark.parent}" in told(["freeze", "--off", *where], capsys)
    assert not mark.exists()
    assert f"was not marked as frozen: {mark.parent}" in told(["freeze", "--off", *where], capsys, 3)


def test_a_freeze_that_the_agent_refuses_leaves_no_mark(
    agent: StandInAgent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user without rights would believe that the host's agent stands still."""

    def refuse(on: bool) -> FreezeState:
        raise AccessError("user 7 may not change anything through this agent", "run as root")

    monkeypatch.setattr(agent, "freeze", refuse)

    assert main(["freeze", "--state-dir", str(tmp_path / "state")]) == 77
    assert not (tmp_path / "state").exists()


def test_top_piped_is_plain_lines(agent: StandInAgent) -> None:
    """In a log there is no screen to draw on: one line for the host, one for each move."""
    agent.answer = status(shrinking(WEB, interval((WEB,)), agent.outcome))
    watch = MemoryWatch(agent)  # type: ignore[arg-type]
    watch.refresh()
    host, move = watch.lines()

    assert "active: 1 VMs, memory 4 GiB" in host
    assert "web: 192 MiB to 128 MiB, done" in move


def test_top_tells_each_move_once(agent: StandInAgent) -> None:
    """The same interval asked twice must not look like two moves."""
    agent.answer = status(shrinking(WEB, interval((WEB,)), agent.outcome))
    watch = MemoryWatch(agent)  # type: ignore[arg-type]

    assert watch.refresh() is True
    assert watch.refresh() is False
    assert len(watch.moves) == 1
    agent.answer = status(shrinking(WEB, interval((WEB,), number=8), agent.outcome))
    assert watch.refresh() is True
    assert len(watch.moves) == 2


def test_top_outlives_its_agent(agent: StandInAgent) -> None:
    """A restart of the agent must not end the screen; the old data is marked as old."""
    watch = MemoryWatch(agent)  # type: ignore[arg-type]
    watch.refresh()
    last, agent.answer = agent.answer, None

    assert watch.refresh() is False
    assert "old" in watch.trouble and watch.status is last
    agent.answer = last
    watch.refresh()
    assert watch.trouble == ""


@pytest.mark.parametrize("wrong", ["0", "soon", "10ms"])
def test_top_refuses_a_senseless_interval(wrong: str, agent: StandInAgent) -> None:
    """A refresh without a pause would keep a core of the host busy."""
    assert main(["top", "--interval", wrong]) == 2


def test_top_once_prints_one_screen(agent: StandInAgent, capsys: pytest.CaptureFixture[str]) -> None:
    """For a screenshot or a ticket one look is enough."""
    text = told(["top", "--once"], capsys)

    assert "web" in text and "nominal" in text
    assert "q quits" not in text
