"""What the demo found, as one frozen value: printed for people, written as JSON for programs."""

from __future__ import annotations

from dataclasses import dataclass

from vmpack.units import format_bytes, format_ratio, format_seconds


@dataclass(frozen=True, slots=True)
class Summary:
    """The demo's result; field names are the keys of its JSON."""

    version: str
    guests: int
    accelerator: str
    """`kvm` or `tcg`."""
    accelerator_reason: str
    nominal_bytes: int
    """What the guests were promised, in all."""
    pretended_host_bytes: int
    packed_bytes: int
    """The most that was packed at one time."""
    packed_ratio: float
    """packed_bytes / nominal_bytes."""
    host_rss_before_bytes: int
    """Resident memory of all QEMUs: memory used and freed inside the guests, nothing packed yet."""
    host_rss_after_bytes: int
    """The same at the packed peak."""
    ramp_bytes: int
    """What one guest came to need on the full host."""
    ramp_from_bytes: int
    ramp_to_bytes: int
    """Its balloon before and at its largest."""
    grant_slowest_s: float
    """The longest time from a guest's report of need to its balloon's arrival."""
    guest_oom_kills: int
    host_oom_kills: int
    given_back_bytes: int
    still_packed_bytes: int
    """After release."""
    actions: int
    intervals: int
    replay_identical: bool
    """The journal, decided again, gave the same bytes."""
    seconds: float

    @property
    def kept_its_promise(self) -> bool:
        """Memory was packed, given back when needed, and nothing was killed."""
        unharmed = self.guest_oom_kills == 0 and self.host_oom_kills == 0
        grown = self.ramp_to_bytes > self.ramp_from_bytes
        return (
            unharmed
            and grown
            and self.packed_bytes > 0
            and self.replay_identical
            and not self.still_packed_bytes
        )


def lines(summary: Summary) -> list[str]:
    """The summary for a person, one fact a line."""
    saved = summary.host_rss_before_bytes - summary.host_rss_after_bytes
    kills = summary.guest_oom_kills + summary.host_oom_kills
    return [
        f"{summary.guests} real guests on {summary.accelerator} ({summary.accelerator_reason})",
        f"packed      {format_bytes(summary.packed_bytes)} of {format_bytes(summary.nominal_bytes)} promised "
        f"({format_ratio(summary.packed_ratio)})",
        f"host memory {format_bytes(summary.host_rss_before_bytes)} before, "
        f"{format_bytes(summary.host_rss_after_bytes)} packed: {format_bytes(saved)} came back",
        f"need        one guest went from {format_bytes(summary.ramp_from_bytes)} to "
        f"{format_bytes(summary.ramp_to_bytes)} on the full host, paid by its idle neighbours; "
        f"slowest grant {format_seconds(summary.grant_slowest_s)}",
        f"killed      {kills or 'nothing'}",
        f"given back  {format_bytes(summary.given_back_bytes)}, "
        f"{format_bytes(summary.still_packed_bytes)} still packed",
        f"proof       {summary.intervals} intervals with {summary.actions} actions decided again from the "
        f"journal: {'identical' if summary.replay_identical else 'DIFFERENT'}",
    ]
