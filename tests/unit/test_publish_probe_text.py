"""Probe texts, read back by a small parser of OpenNebula's template syntax."""

import base64
import dataclasses
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests import intervals

from vmpack.model.interval import Interval
from vmpack.model.plan import Reason
from vmpack.publish.probe_text import CATEGORIES, render

VALUE = r'"((?:[^"\\]|\\"|\\(?!"))*)"'
SINGLE = re.compile(rf"([A-Za-z0-9_]+)\s*=\s*{VALUE}[ \t]*\n")
VECTOR = re.compile(r"([A-Za-z0-9_]+)\s*=\s*\[((?:[^\]\"]|\"[^\"]*\")*)\][ \t]*\n")
PAIR = re.compile(rf"\s*([A-Za-z0-9_]+)\s*=\s*{VALUE}\s*(,|\Z)")


def parse(text: str) -> list[tuple[str, str | dict[str, str]]]:
    """What OpenNebula's parser takes, in order; a rest is a syntax error, which rejects the whole."""
    assert text == "" or text.endswith("\n")
    assert text.isascii()
    assert "]]>" not in text
    found: list[tuple[str, str | dict[str, str]]] = []
    at = 0
    while at < len(text):
        if single := SINGLE.match(text, at):
            found.append((single[1], single[2]))
            at = single.end()
        elif vector := VECTOR.match(text, at):
            found.append((vector[1], pairs(vector[2])))
            at = vector.end()
        else:
            raise AssertionError(f"syntax error at {text[at : at + 60]!r}")
    return found


def pairs(body: str) -> dict[str, str]:
    """The inside of NAME=[ ... ]."""
    found: dict[str, str] = {}
    at = 0
    while body[at:].strip():
        pair = PAIR.match(body, at)
        assert pair is not None, f"syntax error in a vector at {body[at:]!r}"
        found[pair[1]] = pair[2]
        at = pair.end()
    return found


def monitor(block: str | dict[str, str]) -> dict[str, str | dict[str, str]]:
    """The values inside one VM's MONITOR."""
    assert isinstance(block, dict)
    return dict(parse(base64.b64decode(block["MONITOR"], validate=True).decode("ascii")))


def rendered(interval: Interval, observe_only: bool = False) -> dict[str, str]:
    return render(interval, intervals.VERSION, observe_only)


def test_host_values_are_in_kib() -> None:
    """The scheduler reads these: bytes in place of KiB would promise a thousandfold of the room."""
    turn, _ = intervals.history_of(5)[-1]
    values = dict(parse(rendered(turn)["host-system"]))
    assert turn.plan.offer.packed_bytes > 0
    assert values == {
        "PACKEDMEMORY": str(turn.plan.offer.packed_bytes // 1024),
        "OFFEREDMEMORY": str(turn.plan.offer.memory_bytes // 1024),
        "VMPACK_STATE": "ACTIVE",
        "VMPACK_VERSION": intervals.VERSION,
    }


@pytest.mark.parametrize(
    ("frozen", "observe_only", "state"),
    [(False, True, "OBSERVE"), (True, False, "FROZEN"), (True, True, "FROZEN")],
)
def test_state_tells_why_nothing_changes(frozen: bool, observe_only: bool, state: str) -> None:
    """An administrator sees in the cloud itself that a host was frozen or only watches."""
    turn = intervals.interval(intervals.guest(), frozen=frozen)
    assert dict(parse(rendered(turn, observe_only)["host-system"]))["VMPACK_STATE"] == state


def test_empty_host_prints_zeros() -> None:
    """OpenNebula keeps a name that is no longer printed for ever, so an empty host must say 0."""
    texts = rendered(intervals.interval())
    assert tuple(texts) == CATEGORIES
    assert dict(parse(texts["host-system"]))["PACKEDMEMORY"] == "0"
    assert texts["vm-snapshot"] == ""


def test_every_vm_has_its_block() -> None:
    """A VM is found by its uuid, and its owner sees nominal, balloon and what is packed."""
    turn = intervals.interval(intervals.guest(1), intervals.guest(2, used=40))
    assert all(len({reason.rule for reason in plan.reasons}) > 1 for plan in turn.plan.guests)
    blocks = parse(rendered(turn)["vm-snapshot"])
    assert [name for name, _ in blocks] == ["VM", "VM"]
    for (_, block), guest, plan in zip(blocks, turn.snapshot.guests, turn.plan.guests, strict=True):
        assert isinstance(block, dict)
        assert (block["ID"], block["DEPLOY_ID"]) == ("-1", guest.uuid)
        assert monitor(block) == {
            "REALMEMORY": str(guest.balloon_bytes // 1024),
            "MAXMEMORY": str(guest.nominal_bytes // 1024),
            "PACKEDMEMORY": str((guest.nominal_bytes - guest.balloon_bytes) // 1024),
            "VMPACK_FLOOR": str(plan.floor_bytes // 1024),
            "VMPACK_TARGET": str(plan.target_bytes // 1024),
            "VMPACK_STATE": plan.verdict.upper(),
            "VMPACK_REASON": plan.reasons[-1].rule,
        }


@given(st.text(min_size=1), st.text(), st.text())
def test_no_text_breaks_the_syntax(name: str, version: str, rule: str) -> None:
    """One syntax error puts the host in ERROR: whatever a VM is called, the text still parses."""
    turn = intervals.interval(intervals.guest(1, name))
    plan = turn.plan.guests[0]._replace(reasons=(Reason(rule),))
    turn = dataclasses.replace(turn, plan=dataclasses.replace(turn.plan, guests=(plan,)))
    texts = render(turn, version, False)
    assert len(parse(texts["host-system"])) == 4
    blocks = parse(texts["vm-snapshot"])
    assert len(blocks) == 1
    assert len(monitor(blocks[0][1])) == 7


def test_an_impossible_uuid_is_left_out() -> None:
    """A uuid is printed as it is, so one that is none must not reach the text."""
    turn = intervals.interval(
        intervals.guest(1), dataclasses.replace(intervals.guest(2), uuid='x" ] RESERVED_MEM="0')
    )
    blocks = parse(rendered(turn)["vm-snapshot"])
    assert [block["DEPLOY_ID"] for _, block in blocks if isinstance(block, dict)] == [intervals.uuid_of(1)]
