"""Bars, tables and frames: what a person sees of an interval."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.text import Text
from tests.cli_samples import EVIL_NAME, WALL_S, guest, guest_plan, interval, shrinking, status

from vmpack.cli import bars
from vmpack.cli.moves import move_lines
from vmpack.cli.safe_text import shown
from vmpack.cli.top_frame import TimedMove, View, frame
from vmpack.model.action import Outcome, SetMemory
from vmpack.model.plan import GuestVerdict
from vmpack.units import GIB, MIB

ANY_ACTION = SetMemory("", "", 0, 0, 0)


def printed(renderable: object, columns: int = 120) -> str:
    """What a colourless console of this width shows."""
    stream = io.StringIO()
    Console(file=stream, width=columns, markup=False, highlight=False, emoji=False).print(renderable)
    return stream.getvalue()


@given(st.text())
def test_safe_text_lets_nothing_move_the_cursor(text: str) -> None:
    """A VM's owner could otherwise rewrite what an administrator sees."""
    safe = shown(text)

    assert safe.isprintable()
    assert "\x1b" not in safe


def test_safe_text_keeps_what_people_write() -> None:
    """Names in other scripts would otherwise be unreadable."""
    assert shown("bäckerei 東京 [1] 😀") == "bäckerei 東京 [1] 😀"


def test_safe_text_shows_what_it_escaped() -> None:
    """Two VMs whose names differ in a hidden character would otherwise look the same."""
    assert shown("a\n\x1b\u202e\ud800") == "a\\x0a\\x1b\\u202e\\ud800"


@given(
    st.integers(0, 200),
    st.integers(0, 64 * GIB),
    st.integers(0, 64 * GIB),
    st.integers(0, 64 * GIB),
    st.booleans(),
)
def test_host_bar_is_as_wide_as_asked(width: int, own: int, reserve: int, budget: int, plain: bool) -> None:
    """A bar that is too wide breaks the whole screen."""
    sample = interval((guest("a"), guest("b")))
    money = replace(
        sample.plan.budget, host_own_bytes=own, reserve_bytes=reserve, budget_bytes=budget, overhead_bytes=0
    )
    sample = replace(sample, plan=replace(sample.plan, budget=money))

    assert len(bars.host_bar(sample, width, ascii_only=plain)) == width


@given(
    st.integers(0, 200),
    st.integers(-GIB, 8 * GIB),
    st.integers(-GIB, 8 * GIB),
    st.none() | st.integers(-GIB, 8 * GIB),
    st.sampled_from(["grow", "shrink", "hold", "excluded"]),
)
def test_guest_bar_is_as_wide_as_asked(
    width: int, nominal: int, balloon: int, used: int | None, verdict: GuestVerdict
) -> None:
    """One VM with impossible numbers must not break the screen for the others."""
    entry = replace(guest("a"), nominal_bytes=nominal, balloon_bytes=balloon)
    plan = guest_plan("a", verdict)._replace(used_bytes=used, target_bytes=balloon)

    assert len(bars.guest_bar(entry, plan, width)) == width


def test_guest_bar_shows_used_given_and_packed() -> None:
    """The picture is the product: a quarter used, half given on top, a quarter packed."""
    bar = bars.guest_bar(guest("a"), guest_plan("a"), 8)

    assert bar.plain == "██▒▒▒▒··"


def test_guest_bar_marks_the_target_of_a_move() -> None:
    """Without the mark nobody sees where a balloon is going."""
    assert bars.guest_bar(guest("a"), guest_plan("a", "shrink"), 8).plain == "██▒▒│▒··"
    assert bars.guest_bar(guest("a"), guest_plan("a", "shrink"), 8, ascii_only=True).plain == "##==|=.."


def test_host_bar_shows_memory_over_budget() -> None:
    """A host that holds more than its budget is in danger; that must not look like free room."""
    crowded = interval((guest("a", balloon_mib=4096, nominal_mib=4096),))

    assert "over budget 1 GiB" in bars.host_legend(crowded).plain
    assert "free" not in bars.host_legend(crowded).plain


def test_small_parts_stay_visible() -> None:
    """A reserve of a few MiB on a huge host would otherwise vanish from the bar."""
    sample = interval((guest("a"),))
    huge = replace(sample.plan.budget, budget_bytes=4096 * GIB)

    assert "▒" in bars.host_bar(replace(sample, plan=replace(sample.plan, budget=huge)), 60).plain


def test_table_has_units_and_reasons() -> None:
    """Numbers without units and verdicts without reasons help nobody."""
    text = printed(bars.table(interval((guest("web"),), (guest_plan("web", "excluded", None),))))

    assert "256 MiB" in text and "192 MiB" in text and "64 MiB" in text
    assert "unknown" in text
    assert "alone" in text and "huge pages" in text


def test_names_reach_no_terminal_unescaped() -> None:
    """A guest's name with colour codes or markup must be shown, not obeyed."""
    sample = interval((guest(EVIL_NAME),))
    screens = [
        printed(bars.table(sample)),
        printed(frame(status(sample), (), View(120, 24), WALL_S)),
        str(move_lines(shrinking(guest(EVIL_NAME), sample, None))[0]),
    ]

    for text in screens:
        assert "\x1b" not in text and "\u202e" not in text
        assert "\\x1b" in text
    assert "[bold]" in screens[0] and ":smile:" in screens[0]


def test_numbers_survive_80_columns() -> None:
    """On the smallest usual terminal a cut number would be a wrong number."""
    long_name = "a-name-that-is-much-longer-than-any-column"
    text = printed(bars.table(interval((guest(long_name),)), columns=80), 80)

    assert all(len(line) <= 80 for line in text.splitlines())
    assert text.count("MiB") == 5
    assert "hold" in text


@pytest.mark.parametrize("count", [0, 1, 200])
@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (200, 60), (40, 10)])
def test_frame_fits_the_terminal(count: int, columns: int, rows: int) -> None:
    """A frame that is too large scrolls the top of it away."""
    guests = tuple(guest(f"vm-{number:03}") for number in range(count))
    sample = interval(guests)
    moves = [TimedMove("12:00:00", line) for line in move_lines(sample)] * 50

    lines = frame(status(sample), moves, View(columns, rows), WALL_S).plain.split("\n")

    assert len(lines) <= rows
    assert all(Text(line).cell_len <= columns for line in lines)


def test_frame_counts_what_it_cut() -> None:
    """With 200 VMs the reader must know that there are more, and reach the last one."""
    sample = interval(tuple(guest(f"vm-{number:03}") for number in range(200)))
    top = frame(status(sample), (), View(80, 24), WALL_S).plain
    bottom = frame(status(sample), (), View(80, 24, first_row=10**6), WALL_S).plain

    visible = top.count("vm-")
    assert f"{200 - visible} more" in top
    assert "vm-000" in top and "vm-199" not in top
    assert "vm-199" in bottom and f"0 more, {200 - visible} above" in bottom


def test_frame_shows_old_data_as_old() -> None:
    """A dead agent's last picture must not pass for the present."""
    trouble = "no agent answers; what is shown is old"

    assert trouble in frame(status(interval()), (), View(80, 24), WALL_S, trouble).plain


def test_frame_before_the_first_interval() -> None:
    """`top` started right after the agent must not fail."""
    assert "no interval has gone through yet" in frame(status(None), (), View(80, 24), WALL_S).plain


def test_moves_tell_what_was_done_and_why() -> None:
    """The administrator wants to know of each move what, how far and why."""
    entry = guest("web")
    done = shrinking(entry, interval((entry,)), Outcome(ANY_ACTION, "partial", "guest is busy", 150 * MIB))

    assert str(move_lines(done)[0]) == "web: 192 MiB to 128 MiB, partial at 150 MiB: guest is busy (released)"


def test_moves_of_observe_mode_are_told_as_not_done() -> None:
    """In observe mode nobody may believe that memory moved."""
    entry = guest("web")

    assert move_lines(shrinking(entry, interval((entry,)), None))[0].result == "not done"
