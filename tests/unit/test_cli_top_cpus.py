"""The pCPU page of `top`: what a person sees of pCPUs and of who sits on them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.text import Text
from tests.cli_samples import EVIL_NAME, WALL_S
from tests.vcpu_samples import floating, pcpus, pinned, status, vm

from vmpack.cli.top_cpus import frame, rows_of
from vmpack.cli.top_frame import View
from vmpack.model.vcpu import AffinityOutcome, Pcpu, PinChange, VcpuStatus

WIDE = View(120, 40)


def shown(of: VcpuStatus | None, view: View = WIDE, trouble: str = "") -> str:
    return frame(of, view, WALL_S + 2, trouble).plain


def crowded(acts: bool = True) -> VcpuStatus:
    """Four busy vCPUs on one of two pCPUs."""
    return status(
        pcpus(2), *(vm(f"web{n}", pinned(0, 0, 0.25, 0.75, "run_time")) for n in range(4)), acts=acts
    )


def line_of(text: str, pcpu: int) -> str:
    return next(line for line in text.splitlines() if line.startswith(f"{pcpu:>5} "))


def test_a_crowded_pcpu_shows_who_waits() -> None:
    """The picture is the product: four times what a pCPU has must not look like a full one."""
    text = shown(crowded(acts=False), View(80, 40))

    assert line_of(text, 0) == "    0 █████▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒  400 %  web0:0+ web1:0+ web2:0+ web3:0+"
    assert line_of(text, 1) == "    1 ·····                   0 %"


def test_what_was_changed_is_shown_as_changed() -> None:
    """Else the screen shows the trouble for an interval after it was cured."""
    text = shown(crowded(), View(80, 40))

    assert line_of(text, 0).endswith("200 %  web2:0+ web3:0+")
    assert line_of(text, 1).endswith("200 %  web0:0* web1:0*")
    assert "uneven by 0.0 points (wanted 5.0)" in text
    assert "2 pins changed in the last hour, 2 held" in text


def test_changes_are_told_with_their_reasons() -> None:
    """A pin that nobody can explain is a pin that nobody trusts."""
    text = shown(crowded())

    assert "web0: vCPU 0: pCPU 0 -> 1, done" in text
    assert "vCPU 0 leaves pCPU 0, whose vCPUs want 400 % of it (200 % then)" in text


def test_observe_mode_tells_what_was_not_done() -> None:
    """In observe mode nobody may believe that a pin was changed."""
    text = shown(crowded(acts=False))

    assert "vmpack observe" in text
    assert "web0: vCPU 0: pCPU 0 -> 1, not done" in text
    assert "0 pins changed in the last hour, 0 held" in text


def test_a_change_that_failed_is_not_shown_as_made() -> None:
    """An administrator would look for the cause in the wrong place."""
    told = crowded()
    assert told.interval is not None
    failed = tuple(replace(one, status="failed", detail="busy") for one in told.interval.outcomes)
    changed = tuple(PinChange(WALL_S, one, None) for one in failed)
    text = shown(replace(told, interval=replace(told.interval, outcomes=failed), changed=changed))

    assert line_of(text, 0).endswith("400 %  web0:0+ web1:0+ web2:0+ web3:0+")
    assert "failed (busy)" in text and "0 pins changed" in text


def test_whose_each_mask_is_can_be_seen_without_colours() -> None:
    """Who reads a ticket must know which pins are vmpack's to move and which are not."""
    text = shown(
        status(
            pcpus(4),
            vm("a", pinned(0, 0, 0.1), pinned(1, 1, 0.1)),
            vm("b", pinned(0, 1, 0.1, of="owner"), left_alone="owner_mask"),
            vm("c", floating(0, 2, 0.1), floating(1, 2, 0.1)),
            vm("d", floating(0, None, 0.1)),
        )
    )

    assert line_of(text, 0).endswith(" a:0*")
    assert line_of(text, 1).endswith(" a:1* b:0=")
    assert line_of(text, 2).endswith(" c:0-1")
    assert "    - elsewhere  d:0" in text


def test_groups_have_headings_where_there_is_more_than_one() -> None:
    """On two nodes it matters on which one the load is; on one node a heading is noise."""
    one = shown(status(pcpus(4), vm("a", pinned(0, 0, 0.5))))
    two = shown(status(pcpus(4, per_node=2, per_cache=2), vm("a", pinned(0, 0, 0.5))))
    caches = shown(status(pcpus(8, per_node=4, per_cache=2), vm("a", pinned(0, 0, 0.5))))

    assert "node" not in one and "cache" not in one
    assert "node 0: pCPUs 0-1, 25 % on average" in two and "node 1: pCPUs 2-3, 0 % on average" in two
    assert "node 1, cache 3: pCPUs 6-7, 0 % on average" in caches


def test_unequal_pcpus_tell_their_speed() -> None:
    """The same vCPU is a larger load on a slower pCPU; without the speed that looks wrong."""
    unequal = (Pcpu(0), Pcpu(1, core=1, capacity_ratio=0.5))
    text = shown(status(unequal, vm("a", pinned(0, 0, 0.4)), vm("b", pinned(0, 1, 1.0)), acts=False))

    assert "speed" in text and " 0.50 " in line_of(text, 1) and " 200 %" in line_of(text, 1)
    assert "speed" not in shown(crowded())


@pytest.mark.parametrize("count", [0, 2, 512])
@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (200, 60), (40, 10), (20, 3)])
@pytest.mark.parametrize("ascii_only", [False, True])
def test_frame_fits_the_terminal(count: int, columns: int, rows: int, ascii_only: bool) -> None:
    """A frame that is too large scrolls the top of it away."""
    vms = [vm(f"vm-{n:03}", *(pinned(k, n % max(1, count), 0.4) for k in range(3))) for n in range(300)]
    told = status(pcpus(count, 32, 16), *vms)
    told = replace(told, changed=told.changed * 30, last_error="no answer " * 30)

    lines = frame(told, View(columns, rows, 5, ascii_only), WALL_S, "gone").plain.split("\n")

    assert len(lines) <= rows
    assert all(Text(line).cell_len <= columns for line in lines)
    assert not ascii_only or all(line.isascii() for line in lines)


@given(
    load=st.floats(0, 300),
    other=st.floats(0, 1),
    columns=st.integers(1, 250),
    rows=st.integers(1, 60),
    name=st.text(max_size=30),
)
def test_no_load_and_no_name_breaks_the_screen(
    load: float, other: float, columns: int, rows: int, name: str
) -> None:
    """One VM with impossible numbers or an evil name must not break the screen for the others."""
    told = status(pcpus(2), vm(name, pinned(0, 0, 0.5)))
    assert told.interval is not None
    before, after = told.interval.plan.pcpus
    loads = (before._replace(before_ratio=load), after._replace(before_ratio=other))
    interval = replace(told.interval, plan=replace(told.interval.plan, pcpus=loads))

    lines = shown(replace(told, interval=interval), View(columns, rows)).split("\n")

    assert len(lines) <= rows
    assert all(Text(line).cell_len <= columns for line in lines)
    assert all(line.isprintable() for line in lines)


def test_frame_counts_what_it_cut() -> None:
    """With 512 pCPUs the reader must know that there are more, and reach the last one."""
    told = status(pcpus(512, 32, 16), vm("a", pinned(0, 511, 0.5)))
    assert told.interval is not None
    total = len(rows_of(told.interval))
    top, bottom = shown(told, View(80, 24)), shown(told, View(80, 24, first_row=10**6))

    assert total == 512 + 32
    assert "    0 " in top and "  511 " not in top and "more rows" in top
    assert line_of(bottom, 511).endswith(" a:0*")
    assert f"0 more rows, {total - 13} above" in bottom


def test_vcpus_without_room_are_counted() -> None:
    """A pCPU with fifty vCPUs must not look like one with four."""
    text = shown(status(pcpus(1), *(vm(f"vm-{n:02}", pinned(0, 0, 0.01)) for n in range(50))), View(80, 40))
    line = line_of(text, 0)

    assert int(line.rsplit("+", 1)[1]) + line.count("vm-") == 50


def test_names_reach_no_terminal_unescaped() -> None:
    """A guest's name with colour codes must be shown, not obeyed."""
    text = shown(status(pcpus(2), *(vm(EVIL_NAME + str(n), pinned(0, 0, 0.25, 0.75)) for n in range(4))))

    assert "\x1b" not in text and "\u202e" not in text
    assert "\\x1b" in text


def test_trouble_and_age_are_shown() -> None:
    """A dead agent's last picture must not pass for the present."""
    told = crowded()

    assert "no agent answers" in shown(told, trouble="no agent answers")
    assert "the newest turn failed: libvirt hangs" in shown(replace(told, last_error="libvirt hangs"))
    assert "this agent has no vCPU loop" in shown(None, trouble="this agent has no vCPU loop")


def test_before_the_first_look() -> None:
    """`top --cpus` started right after the agent must not fail."""
    assert "not been looked at yet" in shown(VcpuStatus("group", 10.0, False, None, None))


def test_changes_of_long_ago_are_not_counted() -> None:
    """ "In the last hour" is how an administrator sees that the scheduler holds still."""
    told = crowded()
    old = tuple(change._replace(wall_s=WALL_S - 3700) for change in told.changed)
    many = tuple(
        PinChange(WALL_S, AffinityOutcome(told.changed[0].outcome.action, "done"), None) for _ in range(100)
    )

    assert "0 pins changed in the last hour" in shown(replace(told, changed=old))
    assert "at least 100 pins changed in the last hour" in shown(replace(told, changed=many))
