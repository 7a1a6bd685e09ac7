"""The reporter in real guests, installed as OpenNebula's context packages do, against a double of OneGate.

Two guests at the same time: /bin/sh is busybox in one and dash in the other. Each goes its course once; then
every test looks at another side of it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from statistics import mean, median

import pytest

from tests.opennebula.onegate import Vm, stored
from tests.real import onegate_guest
from tests.real.onegate_course import LOAD_BYTES, LONG_PERIOD_S, PERIOD_S, Course, Traveller
from tests.real.onegate_guest import PROGRAM
from vmpack.lab.lab import Lab
from vmpack.units import KIB, MIB

SHELLS = ("busybox", "dash")
CLOCKS_AGREE = 0.97
"""The guest waits by a clock that QEMU emulates; the double's times are the host's."""
KEYS = {
    *("MEM_TOTAL", "MEM_FREE", "MEM_AVAILABLE", "SWAP_TOTAL", "SWAP_FREE", "PGMAJFAULT", "OOM_KILLS"),
    *("PSI_MEM_SOME_PERMILLE", "PSI_MEM_FULL_PERMILLE", "TIMESTAMP"),
}
KEPT = ("applied", "reporter.pid", "reporter.status", "reporter.answer")
"""Its files, in the guest's memory; `applied` is for the guest's own tools."""


@pytest.fixture(scope="module", params=[60, pytest.param(600, marks=pytest.mark.long)], ids="{}s".format)
def courses(
    lab: Lab, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Course]]:
    """What both guests went through in so many seconds."""
    travellers: list[Traveller] = []
    try:
        guests = onegate_guest.boot(lab, tmp_path_factory.mktemp("onegate"), SHELLS)
        for number, guest in enumerate(guests, 7):
            travellers.append(Traveller(guest, Vm(number, f"dG9rZW4r{number}+/w==")))
        with ThreadPoolExecutor(len(guests)) as pool:
            list(pool.map(lambda traveller: traveller.travel(request.param), travellers))
        known = {guest.shell: traveller.course for guest, traveller in zip(guests, travellers, strict=True)}
        print(*(course.summary() for course in known.values()), sep="\n")
        yield known
    finally:
        for traveller in travellers:
            traveller.close()
        onegate_guest.end(lab, SHELLS)


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> str:
    """What /bin/sh is in the guest."""
    return str(request.param)


@pytest.fixture
def course(courses: dict[str, Course], shell: str) -> Course:
    """What the guest with this shell went through."""
    return courses[shell]


def test_every_report_is_taken_and_numbers_only(course: Course) -> None:
    """The cloud would refuse reports, or keep text of a guest where it looks for numbers."""
    ahead_s = time.time() - time.monotonic()
    for request in course.requests:
        assert request.status == 200 or course.outage_s[0] < request.at_s < course.outage_s[1]
    for report in course.reports():
        lines = report.body.split("\n")
        assert all(re.fullmatch(r"[A-Z_]+=[0-9]{1,15}", line) for line in lines)
        values = dict(line.split("=") for line in lines)
        assert set(values) == KEYS
        assert len(lines) == len(KEYS)
        assert abs(int(values["TIMESTAMP"]) - (report.at_s + ahead_s)) < 60
        assert max(int(values[f"PSI_MEM_{kind}_PERMILLE"]) for kind in ("SOME", "FULL")) <= 1000


def test_it_says_what_the_guests_kernel_says(course: Course) -> None:
    """The owner and the scheduler would go by figures that are not the guest's."""
    for memory, told in course.compared:
        assert told["MEM_TOTAL"] * KIB == memory.total_bytes
        assert told["SWAP_TOTAL"] * KIB == memory.swap_total_bytes > 0
        assert told["OOM_KILLS"] == 0
        for name, seen_bytes in (
            ("MEM_FREE", memory.free_bytes),
            ("MEM_AVAILABLE", memory.available_bytes),
            ("SWAP_FREE", memory.swap_free_bytes),
        ):
            assert abs(told[name] * KIB - seen_bytes) < 8 * MIB, name
    available_bytes = [told["MEM_AVAILABLE"] * KIB for _, told in course.compared]
    assert max(available_bytes) - min(available_bytes) > 0.9 * LOAD_BYTES


def test_never_two_requests_in_a_window(course: Course) -> None:
    """Thousands of guests would keep the front-end busy."""
    times = [request.at_s for request in course.requests]
    assert min(b - a for a, b in pairwise(times)) >= CLOCKS_AGREE * PERIOD_S / 3


def test_a_calm_guest_reports_in_every_period_and_no_more(course: Course) -> None:
    """The cloud would take a living guest for a silent one, or be told the same again and again."""
    gaps_s = course.calm_gaps_s()
    assert 0.7 * PERIOD_S < mean(gaps_s) <= PERIOD_S
    assert median(gaps_s) <= PERIOD_S
    assert max(gaps_s) <= 2 * PERIOD_S  # QEMU has other things to do now and then


def test_memory_that_rises_is_told_before_the_period_is_over(course: Course) -> None:
    """A guest that fills up would be seen only when it is full."""
    before, told = course.rise
    assert CLOCKS_AGREE * LONG_PERIOD_S / 3 <= told.at_s - before.at_s <= 0.8 * LONG_PERIOD_S
    fallen_kib = [int(stored(report.body)["MEM_AVAILABLE"]) for report in course.rise]
    assert (fallen_kib[0] - fallen_kib[1]) * KIB > 8 * MIB


def test_it_asks_what_applies_but_seldom(course: Course) -> None:
    """The guest's tools would not know what applies, or the cloud would answer all day."""
    questions = sum(request.method == "GET" and request.status == 200 for request in course.requests)
    new_contexts = 3
    assert 1 <= questions <= new_contexts + len(course.reports()) / 3


def test_an_outage_is_met_with_patience_and_survived(course: Course) -> None:
    """A cloud in trouble would be asked all the faster, or never hear of the guest again."""
    refused_s = [request.at_s for request in course.requests if request.status == 503]
    back_s = next(report.at_s for report in course.reports() if report.at_s > refused_s[-1])
    pauses_s = [b - a for a, b in pairwise([*refused_s, back_s])]
    for failures, pause_s in enumerate(pauses_s, 1):  # and one or more before, when nobody answered
        assert pause_s >= CLOCKS_AGREE * PERIOD_S * 2**failures


def test_one_shell_is_all_that_stays(courses: dict[str, Course], shell: str) -> None:
    """The reporter would itself cost the memory that it is to find."""
    course = courses[shell]
    seen = course.processes
    (pid,) = set.intersection(*map(set, seen)) - set(course.processes_before)
    assert {processes[pid] for processes in seen} == {f"/bin/sh {PROGRAM}"}
    assert course.interpreter == f"/bin/{shell}"


def test_its_files_are_few_and_small(course: Course) -> None:
    """A guest of years would find its memory full of them."""
    new = {name: size for name, size in course.files_running.items() if name not in course.files_before}
    assert set(new) <= {PROGRAM, "/run/vmpack", *(f"/run/vmpack/{name}" for name in KEPT)}
    assert sum(size for name, size in new.items() if name != PROGRAM) < 4 * KIB


def test_uninstalled_it_leaves_nothing(course: Course) -> None:
    """Owners who try it and think better of it could not be rid of it."""
    assert not [line for line in course.processes_after.values() if PROGRAM in line]
    left = set(course.files_after) - set(course.files_before)
    assert left == set()
