"""How much memory the cloud's scheduler is granted on one host beyond what it would use by itself.

    room    = offer - nominals of VMs placed there that the agent does not know yet
    granted = min(factor * packed, room - (base - promised))

so that what the scheduler takes for free comes out at the room that the host really has. Nominals are the
cloud's: a VM that was built with more than its owner pays for has packed less than its agent may think.
Called by `vmpack grant`, and the rule itself by host/probe_grant. Lowered at once; raised in whole steps and
not soon after the last change.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from vmpack.model.cluster import AgentAnswer, AgentReport, CloudHost, GrantPlan, NoReport
from vmpack.model.settings import GrantSettings
from vmpack.units import format_bytes, format_seconds


def plan_grant(
    host: CloudHost,
    nominals: Mapping[str, int] | None,
    answer: AgentAnswer,
    settings: GrantSettings,
    now_s: float,
) -> GrantPlan:
    """What the scheduler shall be granted on this host now.

    `nominals` are those of the cloud's VMs in bytes, by libvirt name or UUID; None where they cannot be read:
    then nothing is raised. `now_s` is Unix time.
    """
    present = host.granted_bytes or 0
    refusal = host.fault or _refusal(host, answer)
    if refusal:
        return _withdrawn(host, refusal)
    assert isinstance(answer, AgentReport)
    known = nominals or {}
    packed, arriving = packed_bytes(host, known, answer), arriving_bytes(host, known, answer)
    room = min(answer.offered_bytes, answer.capacity_bytes) - arriving
    fitting = fitting_bytes(packed, room, host.base_bytes - host.promised_bytes, settings.factor)
    target = fitting - fitting % settings.step_bytes
    numbers = (
        f"offers {format_bytes(answer.offered_bytes)}, has packed {format_bytes(packed)}, "
        f"on their way {format_bytes(arriving)}"
    )
    if target == 0:
        return _withdrawn(host, f"no room beyond its own: {numbers}")
    if target < present and present > fitting:
        return GrantPlan(host, target, True, f"lowered: {numbers}")
    if target <= present:
        return GrantPlan(host, present, False, f"stays: {numbers}")
    if nominals is None:
        return GrantPlan(host, present, False, f"not raised, for the cloud's VMs cannot be read: {numbers}")
    waited_s = _since_change_s(host, now_s)
    if waited_s is not None and waited_s < settings.calm_s:
        left = format_seconds(settings.calm_s - waited_s)
        return GrantPlan(host, present, False, f"may be raised in {left}: {numbers}")
    return GrantPlan(host, target, True, f"raised: {numbers}")


def plan_withdrawal(host: CloudHost, why: str) -> GrantPlan:
    """The administrator's own value comes back; that needs no knowledge of what it means."""
    return _withdrawn(host, f"{why}; {host.fault}" if host.fault else why)


def fitting_bytes(packed_bytes: int, room_bytes: int, free_without_bytes: int, factor: float) -> int:
    """The largest grant that promises nothing twice.

    `free_without_bytes` is what the scheduler would take for free without a grant: negative where it promised
    more than it has.
    """
    return max(0, min(int(factor * packed_bytes), room_bytes - free_without_bytes))


def arriving_bytes(host: CloudHost, nominals: Mapping[str, int], report: AgentReport) -> int:
    """What the cloud has placed there and the agent does not count yet: it may all be wanted."""
    return max(0, host.promised_bytes - sum(nominal for nominal, _ in _known(host, nominals, report)))


def packed_bytes(host: CloudHost, nominals: Mapping[str, int], report: AgentReport) -> int:
    """What the cloud's VMs there were promised and do not have now."""
    packed = sum(max(0, nominal - balloon) for nominal, balloon in _known(host, nominals, report))
    return min(report.packed_bytes, packed)


def _known(host: CloudHost, nominals: Mapping[str, int], report: AgentReport) -> Iterator[tuple[int, int]]:
    """Nominal and balloon of each VM that both know of."""
    counted = set(host.domains)
    for vm in report.vms:
        domain = vm.name if vm.name in counted else vm.uuid
        if domain in counted:
            counted.remove(domain)
            yield min(vm.nominal_bytes, nominals.get(domain, vm.nominal_bytes)), vm.balloon_bytes


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
        left = "what was noted of an earlier grant goes: " if host.marked else ""
        return GrantPlan(host, 0, host.marked, f"{left}{why}")
    return GrantPlan(host, 0, True, f"withdrawn: {why}")


def _since_change_s(host: CloudHost, now_s: float) -> float | None:
    """None where it never changed, or by a clock that ran ahead of ours."""
    if host.granted_s is None or host.granted_s > now_s:
        return None
    return now_s - host.granted_s
