"""Carries a live migration by the cloud through: checks, asks, and watches until it is seen where it went.

Called by `vmpack migrate`. Promises: never raises once the cloud has accepted it; `done` is only said of what
the cloud showed afterwards.
"""

from __future__ import annotations

from collections.abc import Callable

from vmpack.clock import Clock
from vmpack.clouds.cloud import Cloud
from vmpack.errors import CloudError, CloudLostError, VmpackError
from vmpack.model.cluster import CloudHost, CloudVm, MoveOutcome, MoveState, MoveTicket
from vmpack.units import format_seconds

LOOK_S = 1.0
UNCLEAR_LOOKS = 5
"""A VM may be between two states: so often in a row it must look odd."""

Show = Callable[[MoveState, float], None]


def carry_out(
    cloud: Cloud, vm: CloudVm, host: CloudHost, clock: Clock, timeout_s: float, show: Show
) -> MoveOutcome:
    """Move it, and say what came of it. Ends early when the clock is stopped."""
    refusals = cloud.refusals(vm, host)
    if refusals:
        return MoveOutcome(vm, host, "skipped", "; ".join(refusals))
    begun_s = clock.time_s()
    try:
        ticket = cloud.migrate(vm, host)
    except CloudLostError as error:
        return MoveOutcome(
            vm, host, "unclear", f"whether it was begun is not known: {error.message}", _look(vm)
        )
    except CloudError as error:
        return MoveOutcome(vm, host, "skipped", error.message, error.hint)
    return _followed(cloud, ticket, clock, begun_s, timeout_s, show)


def _followed(
    cloud: Cloud, ticket: MoveTicket, clock: Clock, begun_s: float, timeout_s: float, show: Show
) -> MoveOutcome:
    odd = 0
    while True:
        stopped = clock.wait(LOOK_S)
        elapsed_s = clock.time_s() - begun_s
        try:
            state = cloud.move(ticket)
        except VmpackError as error:
            state = MoveState("moving", f"not seen at present: {error.message}")
        odd = odd + 1 if state.status == "unclear" else 0
        if state.status == "moved":
            return _outcome(ticket, "done", state.detail, elapsed_s)
        if state.status == "stayed":
            hint = f"`onevm show {ticket.vm.id}` and /var/log/one/{ticket.vm.id}.log tell why"
            return _outcome(ticket, "failed", state.detail, elapsed_s, hint)
        if odd >= UNCLEAR_LOOKS:
            return _outcome(ticket, "unclear", state.detail, elapsed_s, _look(ticket.vm))
        if stopped or elapsed_s >= timeout_s:
            return _left(cloud, ticket, state, elapsed_s, stopped)
        show(state, elapsed_s)


def _left(cloud: Cloud, ticket: MoveTicket, state: MoveState, elapsed_s: float, stopped: bool) -> MoveOutcome:
    """No longer watched: on request, or because its time is over."""
    why = "no longer watched, on request" if stopped else f"not done within {format_seconds(elapsed_s)}"
    try:
        ended = cloud.stop_move(ticket)
    except VmpackError:
        ended = False
    goes_on = "the cloud was asked to give it up" if ended else "the migration itself goes on"
    return _outcome(
        ticket, "going_on", f"{why}; {goes_on}. Last seen: {state.detail}", elapsed_s, _look(ticket.vm)
    )


def _outcome(ticket: MoveTicket, status: str, detail: str, elapsed_s: float, hint: str = "") -> MoveOutcome:
    return MoveOutcome(ticket.vm, ticket.destination, status, detail, hint, elapsed_s)  # type: ignore[arg-type]


def _look(vm: CloudVm) -> str:
    return f"look with `vmpack vms {vm.id}` before anything else is done with it"
