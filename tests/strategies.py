"""Hypothesis strategies: any host that libvirt could show, in sizes small enough to read."""

from __future__ import annotations

import dataclasses

from hypothesis import strategies as st

from tests.builders import NOW_S, SETTINGS, guest, host
from vmpack.decide.learn import learn
from vmpack.decide.sizes import size_table
from vmpack.model.guest import GuestPolicy, GuestSnapshot
from vmpack.model.host import HostSnapshot
from vmpack.model.plan import Remembered, RememberedGuest, Rises

policies = st.builds(
    GuestPolicy,
    floor_bytes=st.none() | st.integers(0, 600 << 20),
    shares=st.none() | st.integers(1, 100_000),
    headroom_ratio=st.none() | st.floats(0, 4),
    headroom_min_bytes=st.none() | st.integers(0, 2**34),
    opt_out=st.booleans(),
    hold_until_s=st.none() | st.just(4e9),
)


@st.composite
def guests(draw: st.DrawFn, name: str) -> GuestSnapshot:
    """Mostly healthy VMs; some silent, paused, busy, excluded or with a driver that never reports."""
    nominal = draw(st.integers(96, 1024))
    balloon = draw(st.one_of(st.just(nominal), st.integers(64, nominal)))
    entry = guest(
        name,
        nominal=nominal,
        balloon=balloon,
        used=draw(st.integers(0, 1100)),
        autodeflate=draw(st.booleans()),
        age_s=draw(st.sampled_from([0.0, 1.0, 3.0, 500.0])),
    )
    twist = draw(
        st.sampled_from(["", "", "", "", "policy", "paused", "job", "excluded", "mute", "no period"])
    )
    if twist == "policy":
        return dataclasses.replace(entry, policy=draw(policies))
    if twist == "paused":
        return dataclasses.replace(entry, state="paused")
    if twist == "job":
        return dataclasses.replace(entry, job="save")
    if twist == "excluded":
        return dataclasses.replace(entry, exclusions=("huge_pages",))
    if twist == "mute":
        return dataclasses.replace(entry, stats=None)
    if twist == "no period":
        return dataclasses.replace(entry, stats=None, stats_period_s=0)
    return entry


@st.composite
def hosts(draw: st.DrawFn) -> HostSnapshot:
    """Up to eight VMs on a host that has from half to twice the memory that they hold."""
    count = draw(st.integers(0, 8))
    all_guests = [draw(guests(f"g{number}")) for number in range(count)]
    held = sum(entry.balloon_bytes for entry in all_guests) >> 20
    return host(*all_guests, budget=draw(st.integers(held // 2, 2 * held + 64)), now_s=NOW_S)


@st.composite
def experienced(draw: st.DrawFn, entry: GuestSnapshot) -> RememberedGuest:
    """This guest, known for a while: for its rises, and perhaps for having been pressed."""
    known = learn(entry, None, NOW_S, size_table(SETTINGS.memory)[entry.nominal_bytes], SETTINGS.memory)
    if known.use is None:
        return known
    rises = draw(st.none() | st.builds(_rises, st.integers(0, 2**31), st.integers(0, 2**31)))
    pressed_floor = draw(st.sampled_from([0, 0, 100 << 20, 300 << 20, 4096 << 20]))
    until_s = draw(st.sampled_from([NOW_S - 1, NOW_S + 600])) if pressed_floor else None
    use = known.use._replace(
        rises=rises, pressed_floor_bytes=pressed_floor, pressed_floor_until_s=until_s, presses=1
    )
    return known._replace(use=use)


def _rises(usual: int, kept: int) -> Rises:
    return Rises((), NOW_S, NOW_S, NOW_S, usual, kept)


@st.composite
def known_hosts(draw: st.DrawFn) -> tuple[HostSnapshot, Remembered]:
    """Any host, with what an agent that saw its VMs before remembers of them."""
    snapshot = draw(hosts())
    return snapshot, Remembered({entry.uuid: draw(experienced(entry)) for entry in snapshot.guests})
