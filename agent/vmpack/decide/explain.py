"""The words behind every rule: what happened, with its numbers, and what would have changed it."""

from __future__ import annotations

from vmpack.model.plan import Reason
from vmpack.units import format_bytes, format_seconds

_WORDS: dict[str, tuple[str, str]] = {
    # Why a VM needs what it needs.
    "use_plus_headroom": (
        "it uses {used_bytes}, its kernel keeps {kernel_bytes}; with {fixed_headroom_bytes} of fixed and "
        "{elastic_headroom_bytes} elastic headroom, {rise_bytes} for a rise under way, floor {floor_bytes}",
        "another floor or headroom for this VM (vmpack policy), or other use inside the guest",
    ),
    "guest_is_pressed": (
        "it swapped in a moment ago, so headroom is kept for certain and added once more; it uses "
        "{used_bytes}",
        "a quiet time without swap-in",
    ),
    "guest_was_pressed": (
        "with a smaller balloon {note}, so it wants {pressed_floor_bytes} for a while; it uses {used_bytes}",
        "half an hour or more without that, then the smaller size is tried again",
    ),
    "guest_has_no_free_memory": (
        "it has no free memory, so its true need is hidden and it gets a large step at once; "
        "visible use is {used_bytes}",
        "free memory inside the guest",
    ),
    "guest_killed_something": (
        "its guest killed a process for want of memory while it was packed, so it keeps {floor_bytes} for a "
        "while; it uses {used_bytes} now",
        "time (memory.kill_floor_s), or vmpack hold VM to leave it alone for good",
    ),
    "statistics_are_old": (
        "its statistics are too old to take memory from it; last known use {used_bytes}",
        "fresh statistics from its balloon driver",
    ),
    "no_statistics": (
        "it has never reported statistics, so it keeps what it has ({balloon_bytes})",
        "a balloon driver in the guest, and a statistics period (vmpack doctor)",
    ),
    "silent": (
        "it fell silent {quiet_s} ago (allowed {allowed_s}); it has its nominal and keeps it",
        "fresh statistics from its balloon driver",
    ),
    "awaiting_statistics": (
        "it was changed or first seen after its newest report; nothing is taken before the next one",
        "a report that is younger than the last change",
    ),
    "silent_gets_safe_size": (
        "it fell silent {quiet_s} ago (allowed {allowed_s}) while shrunk, so it gets back its last safe size",
        "fresh statistics from its balloon driver",
    ),
    "silent_gets_nominal": (
        "it has been silent for {quiet_s} (allowed {allowed_s}) while shrunk, so it gets back all that was "
        "promised",
        "fresh statistics from its balloon driver",
    ),
    # What is done with vCPUs.
    "vcpu_moved": (
        "vCPU {vcpu} leaves pCPU {from_pcpu}, whose vCPUs want {from_before_pct} of it ({from_after_pct} "
        "then), for pCPU {to_pcpu} with {to_before_pct} ({to_after_pct} then)",
        "more even loads, a larger vcpu.target_points, or a hold on this VM",
    ),
    "vcpu_lost_its_pcpu": (
        "vCPU {vcpu} was on no pCPU that VMs may use, so it gets pCPU {to_pcpu}, whose vCPUs want "
        "{to_before_pct} of it ({to_after_pct} then)",
        "its pCPU switched on again, or taken from vcpu.reserved_cpus",
    ),
    "vcpu_kept": (
        "vCPU {vcpu} stays on pCPU {pcpu}: the kernel would move it for those that are pinned now",
        "vcpu.mode = off, or a hold on this VM",
    ),
    "vm_grouped": (
        "its threads are kept together on {pcpus} pCPUs from pCPU {first_pcpu} on, which share a cache and a "
        "NUMA node",
        "vcpu.mode = off, or a hold on this VM",
    ),
    "vcpus_rest": ("its vCPUs stay where they are", "uneven loads of the pCPUs"),
    "vcpus_left_alone": (
        "its vCPUs are left alone ({note})",
        "no pins of its owner or its cloud, no real-time vCPUs, no running job, no hold",
    ),
    "vcpus_spread": (
        "the loads of the pCPUs are uneven by {std_points}, wanted is {target_points} at most: it is "
        "{std_after_points} with {changes} changed",
        "a larger vcpu.target_points",
    ),
    "vcpus_stay": (
        "the loads of the pCPUs are uneven by {std_points}, wanted is {target_points} at most: nothing "
        "better is worth a change, or it may be chance",
        "a smaller vcpu.target_points, or loads that stay uneven",
    ),
    "vcpus_grouped": (
        "VMs are kept on the pCPUs of one cache or NUMA node each: {changes} changed",
        "vcpu.mode = off",
    ),
    # Why a VM is left alone.
    "excluded": (
        "it cannot be ballooned safely: {note}",
        "another definition of the VM, where its owner wants that",
    ),
    "job_running": (
        "a job is running on it ({note}); it is left alone until that ends",
        "the end of the job",
    ),
    "not_running": ("it is not running ({note})", "resuming or starting the VM"),
    "on_hold": ("the administrator put it on hold", "vmpack hold VM --off"),
    "action_running": (
        "an action of its cloud is at work on it; it is left alone meanwhile",
        "the end of that action, half a minute later at most",
    ),
    "opt_out": ("its owner opted out", "vmpack policy VM --opt-in"),
    "opt_out_gives_back": (
        "its owner opted out, so it gets back all that was promised (now {balloon_bytes})",
        "vmpack policy VM --opt-in",
    ),
    # Why the balloon moves, or does not.
    "unused_is_packed": (
        "its balloon of {balloon_bytes} is above its target of {target_bytes}; {step_bytes} of it are packed",
        "more use inside the guest, more headroom, or a higher floor",
    ),
    "within_dead_band": (
        "its balloon of {balloon_bytes} is within {band_bytes} of its target {target_bytes}: nothing to do",
        "a change of need larger than the dead band (memory.dead_band_ratio)",
    ),
    "not_calm_yet": (
        "it could go from {balloon_bytes} to {target_bytes}, but was calm for only {calm_s} of {needed_s}",
        "waiting, or a shorter memory.calm_s",
    ),
    "use_still_falls": (
        "it could go from {balloon_bytes} to {target_bytes}, but its use still falls: one larger step later",
        "waiting for its use to stand",
    ),
    "saves_too_little_yet": (
        "it could go from {balloon_bytes} to {target_bytes}, but its spare memory times the time that it has "
        "been spare is {paid_pct} of what is worth an order: an average VM's memory for memory.calm_s",
        "waiting: the more is spare, the sooner; or a shorter memory.calm_s",
    ),
    "moved_just_now": ("its balloon was moved a moment ago", "waiting for the next interval"),
    "pays_for_others": (
        "others need memory at once and it has {spare_bytes} above its fair share: {taken_bytes} are taken",
        "more need or shares of its own, or more memory in the host",
    ),
    "balloon_is_moving": ("its balloon ({balloon_bytes}) is still on its way", "the balloon's arrival"),
    "balloon_stopped_short": (
        "its balloon stopped at {balloon_bytes} on the way to {asked_bytes}; that is its floor for now and "
        "it is squeezed no further",
        "memory freed inside the guest, and time (memory.learned_floor_s)",
    ),
    "need_overtook_the_shrink": (
        "it was on its way down to {asked_bytes} when its need overtook that: the shrink is stopped",
        "less use inside the guest",
    ),
    "balloon_does_not_grow": (
        "it was given memory up to {asked_bytes} but its balloon stays at {balloon_bytes}; "
        "it is asked again later",
        "a balloon driver that answers (is the guest hung?)",
    ),
    # What was learned of a VM.
    "learned_rises": (
        "its use rises by about {rise_bytes} or more within {interval_s} some {per_day} times a day (known "
        "for {known_s}); {kept_bytes} are kept for that (stance {note})",
        "another stance (memory.stance), or time: a rise counts half a day later",
    ),
    "learned_lately": (
        "its use rose by about {rise_bytes} or more within {interval_s}, {times} times in the {known_s} "
        "since its first rise; {kept_bytes} are kept for that (stance {note})",
        "another stance (memory.stance), or time: a rise counts half a day later",
    ),
    "learned_seldom": (
        "it rises seldom: some {per_day} times a day by 1 MiB or more within {interval_s}, {largest_bytes} "
        "at most (known for {known_s}); nothing is kept for that (stance {note})",
        "more rises, or another stance (memory.stance)",
    ),
    "learned_pressed": (
        "{note} when it had less ({times} times in a row): {kept_bytes} are kept for {left_s} more, and "
        "twice as long the next time",
        "time without it, or another stance (memory.stance)",
    ),
    "learned_floor": (
        "its balloon stopped at {kept_bytes}: it is not asked for less for {left_s} more",
        "time (memory.learned_floor_s)",
    ),
    "learned_kills": (
        "its guest killed a process for want of memory while it was packed ({times} times lately): it keeps "
        "its nominal of {kept_bytes} for {left_s} more",
        "time (memory.kill_floor_s)",
    ),
    "learned_elsewhere": (
        "what was learned of it before it came here is taken up with its first report",
        "its first report",
    ),
    "learned_nothing": ("nothing yet: it was never seen to rise by 1 MiB or more within {interval_s}", ""),
    # Giving back.
    "released": ("it gets back all that was promised: {nominal_bytes}", "nothing; that is what release does"),
    "release_does_not_fit": (
        "the host cannot hold every VM's nominal: it gets {target_bytes} of {nominal_bytes} and stays packed "
        "by the rest",
        "stopping or migrating a VM, or more memory in the host; then vmpack release again",
    ),
    "release_not_asked": ("it was not asked to be released", "vmpack release VM"),
    "released_when_it_goes_on": (
        "it is not running: it takes what it was given when it goes on",
        "resuming or starting the VM",
    ),
    # NUMA nodes.
    "nodes_are_full": (
        "its memory is bound to NUMA node {note}, where all VMs so bound may have {node_budget_bytes} and "
        "want {wanted_bytes}; what is free elsewhere does not help it",
        "less use by what else runs there, other bounds (virsh numatune), or migrating a VM",
    ),
    "nodes_not_kept_apart": (
        "VMs are bound to NUMA node {note}, and others to a part of these: only the host's budget holds for "
        "them",
        "bounds that do not overlap (virsh numatune)",
    ),
    # The host.
    "host_runs_short": (
        "the machine has only {available_bytes} left of a reserve of {reserve_bytes}, or stalls for want of "
        "memory ({stalled_pct} of the time): comfort is taken back at once and nothing is offered",
        "less use of memory on the host outside of VMs; stopping or migrating a VM",
    ),
    "host_memory_falls": (
        "the machine's free memory fell from {before_bytes} to {available_bytes}",
        "less use of memory on the host outside of VMs",
    ),
    "balloon_grew_by_itself": (
        "the guest of {note} took memory back by itself: {balloon_bytes} instead of {expected_bytes}",
        "less use inside the guest",
    ),
    "room_has_come_free": (
        "VMs that lack {unpaid_bytes} can be paid with the {freed_bytes} that shrinking balloons have given",
        "nothing; it comes with the next turn",
    ),
    "need_rises_fast": (
        "free memory in the guest of {note} fell from {before_bytes} to {usable_bytes}",
        "less use inside the guest",
    ),
    "host_over_budget": (
        "the VMs hold {over_bytes} more than the host's budget",
        "shrinking (under way where possible), stopping or migrating a VM",
    ),
    "host_is_scarce": (
        "not every VM's minimum fits: {lacking_bytes} are lacking",
        "stopping or migrating a VM, lower floors, or more memory in the host",
    ),
    "offer": (
        "of a budget of {budget_bytes} the VMs need {needed_bytes} (of that {newcomers_bytes} are nominals "
        "of VMs that are not known yet), {growth_reserve_bytes} are kept for rises within {reaction_s}, "
        "passed with a chance of at most {bound_pct}; {claimed_bytes} are claimed",
        "less or steadier use in the guests, fewer claims, a larger offer.bound_ratio, or a cloud that "
        "reacts sooner (offer.reaction_s)",
    ),
}

_EXCLUSIONS = {
    "no_balloon_device": "it has no balloon device",
    "huge_pages": "its memory is huge pages, which the balloon cannot give back",
    "locked_memory": "its memory is locked in the host",
    "file_backed_memory": "its memory is a file, which ballooning would only punch holes in",
    "pci_passthrough": "it has a PCI device of the host, which needs all of its memory in place",
    "encrypted_memory": "its memory is encrypted",
    "memory_hotplug": "memory can be plugged into it, of which its balloon knows nothing",
    "dedicated_cpus": "it has CPUs of its own: its owner paid for undisturbed performance",
}

_STRAINS = {
    # Learned elsewhere: before a migration, or by an older vmpack.
    "": "it was short of memory",
    "faults": "it swapped in or faulted hard",
    "before": "it had too little, before it came here or this agent began,",
    "refaults": "it read again from its disk what it had just lost from its page cache",
    "allocation_stalls": "programs in it had to free memory before they got any",
    "stalled": "programs in it stood still for want of memory",
}


_LEFT_ALONE = {
    "dedicated_cpus": "each has a pCPU of its own",
    "owner_mask": "its owner or its cloud pinned them",
    "run_time_mask": "somebody pinned them at run time",
    "real_time": "they run in real time",
    "job": "another job has the VM",
    "not_running": "it does not run",
    "held": "it is held",
    "opt_out": "its owner wants it so",
}
_NOTES = {"guest_was_pressed": _STRAINS, "learned_pressed": _STRAINS, "vcpus_left_alone": _LEFT_ALONE}


def words(reason: Reason) -> tuple[str, str]:
    """What happened, and what would have changed it. A rule without words is shown by its name."""
    what, change = _WORDS.get(reason.rule, (reason.rule.replace("_", " "), ""))
    known = _NOTES.get(reason.rule, _EXCLUSIONS)
    note = known.get(reason.note, reason.note)
    shown = {name: _number(name, value) for name, value in reason.numbers.items()}
    return what.format_map(_Shown(shown, note=note)), change


class _Shown(dict[str, str]):
    """A number that an older journal does not have is shown as unknown."""

    def __missing__(self, name: str) -> str:
        return "?"


def rules() -> frozenset[str]:
    """Every rule that has words; a test holds this against the rules that decide/ can give."""
    return frozenset(_WORDS)


def _number(name: str, value: float) -> str:
    if name.endswith("_bytes"):
        return format_bytes(value)
    if name.endswith("_points"):
        return f"{value:.1f} points"
    if name.endswith("_pct"):
        return f"{value:.3g} %"
    return format_seconds(value) if name.endswith("_s") else str(value)
