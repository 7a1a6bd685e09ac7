"""What a soak found, as one JSON object, and what of it is a fault."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from tests.soak.soak import JOURNAL_CAP_BYTES, Findings
from tests.soak.vitals import growths
from tests.soak.watch import AgentWatch
from vmpack.units import format_bytes

FAILED_RATIO = 0.01
"""So many intervals may fail: libvirt stands still while it starts or restores a VM on a busy machine."""


def summary(found: Findings, watch: AgentWatch, silences: list[str], **about: Any) -> dict[str, Any]:
    """All figures, and `faults`: empty after a soak that kept every promise."""
    grown = growths(found.samples)
    log_faults = watch.log_faults()
    return {
        **about,
        "passed_s": round(found.passed_s),
        "events": {"planned": found.planned, "done": found.done, "skipped": found.skipped},
        "intervals": watch.counts["intervals"],
        "failed_intervals": watch.counts["failed_intervals"],
        "actions": watch.counts["actions"],
        "calms": [
            {
                "begin_s": round(calm.phase.begin_s),
                "settled_after_s": round(calm.settled_after_s),
                "late_actions": calm.late_actions,
                "judged": calm.is_judged,
            }
            for calm in found.calms
        ],
        "guest_oom_kills": found.guest_kills,
        "host_oom_kills": found.host_kills,
        "unanswered": silences[:20],
        "budget": {name: value for name, value in asdict(watch.budget).items() if name[0] != "_"},
        "journal_highest_bytes": max((sample.journal_bytes for sample in found.samples), default=0),
        "growth": {
            lives: {figure.name: asdict(figure) | {"grew": figure.grew} for figure in figures}
            for lives, figures in grown.items()
        },
        "log_faults": log_faults[:20],
        "faults": [
            *([found.broken_off] if found.broken_off not in ("", "interrupted") else []),
            *_host_faults(found, watch),
            *(
                f"{figure.name} grew in {lives} from {figure.first:g} to {figure.last:g}"
                for lives, figures in grown.items()
                for figure in figures
                if figure.grew
            ),
            *(f"the log says: {line}" for line in log_faults[:5]),
        ],
    }


def _host_faults(found: Findings, watch: AgentWatch) -> list[str]:
    faults = []
    failed, intervals = watch.counts["failed_intervals"], watch.counts["intervals"]
    if failed > max(1, FAILED_RATIO * intervals):
        faults.append(f"{failed} of {intervals} intervals failed")
    if found.guest_kills:
        faults.append(f"{found.guest_kills} OOM kills inside guests")
    if found.host_kills:
        faults.append(f"{found.host_kills} OOM kills on this machine")
    if watch.budget.is_broken:
        faults.append(
            f"the host's budget was broken: over it for {watch.budget.longest_over_s:.0f} s, "
            f"QEMUs held {format_bytes(watch.budget.highest_rss_bytes)}"
        )
    journal_bytes = max((sample.journal_bytes for sample in found.samples), default=0)
    if journal_bytes > JOURNAL_CAP_BYTES:
        faults.append(f"the journal grew to {format_bytes(journal_bytes)}, beyond its cap")
    faults += [
        f"{calm.late_actions} actions in the calm that began at {calm.phase.begin_s:.0f} s"
        for calm in found.calms
        if calm.is_judged and calm.late_actions
    ]
    return faults
