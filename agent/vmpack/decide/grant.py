"""How much memory the cloud's scheduler is granted on one host beyond what it would use by itself.

    room    = offer - nominals of VMs placed there that the agent does not know yet
    granted = min(factor * packed, room - (base - promised))

so that what the scheduler takes for free comes out at the room that the host really has. Called by
`vmpack grant`. Lowered at once; raised in whole steps and not soon after the last change.
"""

from __future__ import annotations

from vmpack.model.cluster import AgentAnswer, AgentReport, CloudHost, GrantPlan, NoReport
from vmpack.model.settings import GrantSettings
from vmpack.units import format_bytes, format_seconds


def plan_grant(host: CloudHost, answer: AgentAnswer, settings: GrantSettings, now_s: float) -> GrantPlan:
    """What this host's scheduler shall be granted now. `now_s` is Unix time."""
    present = host.granted_bytes or 0
    if host.fault:
        return GrantPlan(host, present, False, host.fault)
    refusal = _refusal(host, answer)
    if refusal:
        return _withdrawn(host, refusal)
    assert isinstance(answer, AgentReport)
    fitting = fitting_bytes(host, answer, settings.factor)
    target = fitting - fitting % settings.step_bytes
    numbers = (
        f"offers {format_bytes(answer.offered_bytes)}, has packed {format_bytes(answer.packed_bytes)}, "
        f"on their way {format_bytes(arriving_bytes(host, answer))}"
    )
    if target == 0:
        return _withdrawn(host, f"no room beyond its own: {numbers}")
    if target < present and present > fitting:
        return GrantPlan(host, target, True, f"lowered: {numbers}")
    if target <= present:
        return GrantPlan(host, present, False, f"stays: {numbers}")
    waited_s = _since_change_s(host, now_s)
    if waited_s is not None and waited_s < settings.calm_s:
        left = format_seconds(settings.calm_s - waited_s)
        return GrantPlan(host, present, False, f"may be raised in {left}: {numbers}")
    return GrantPlan(host, target, True, f"raised: {numbers}")


def plan_withdrawal(host: CloudHost) -> GrantPlan:
    """The administrator's own value comes back."""
    if host.fault:
        return GrantPlan(host, host.granted_bytes or 0, False, host.fault)
    return _withdrawn(host, "switched off")


def fitting_bytes(host: CloudHost, report: AgentReport, factor: float) -> int:
    """The largest grant that promises nothing twice."""
    room = report.offered_bytes - arriving_bytes(host, report)
    free_without = host.base_bytes - host.promised_bytes
    return max(0, min(int(factor * report.packed_bytes), room - free_without))


def arriving_bytes(host: CloudHost, report: AgentReport) -> int:
    """What the cloud has placed there and the agent does not count yet: it may all be wanted."""
    counted = set(host.domains)
    known = sum(vm.nominal_bytes for vm in report.vms if vm.name in counted or vm.uuid in counted)
    return max(0, host.promised_bytes - known)


def _refusal(host: CloudHost, answer: AgentAnswer) -> str:
    if host.state == "down":
        return "the cloud does not see it as working"
    if isinstance(answer, NoReport):
        return answer.why
    if answer.state == "observe":
        return "its agent only observes"
    if answer.state == "frozen":
        return "it is frozen"
    if answer.stale:
        return "what its agent knows is old"
    return ""


def _withdrawn(host: CloudHost, why: str) -> GrantPlan:
    if host.granted_bytes is None:
        return GrantPlan(host, 0, False, why)
    return GrantPlan(host, 0, True, f"withdrawn: {why}")


def _since_change_s(host: CloudHost, now_s: float) -> float | None:
    """None where it never changed, or by a clock that ran ahead of ours."""
    if host.granted_s is None or host.granted_s > now_s:
        return None
    return now_s - host.granted_s
