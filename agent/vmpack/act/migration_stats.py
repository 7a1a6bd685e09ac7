"""What libvirt tells of a migration while it goes on, and afterwards. Called by migration.py."""

from __future__ import annotations

from typing import Any

from vmpack.hypervisor import translated
from vmpack.model.migration import MigrationProgress


def job_stats(domain: Any, *, completed: bool = False) -> dict[str, Any]:
    """How a migration goes, or with `completed` how it went. Raises as `translated` does."""
    import libvirt

    with translated(f"read the migration of {domain.name()}"):
        return dict(domain.jobStats(libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED if completed else 0))


def is_migration(stats: dict[str, Any]) -> bool:
    """True for the job of a VM that is on its way out."""
    import libvirt

    return stats.get("operation") == libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT


def progress(stats: dict[str, Any], elapsed_s: float) -> MigrationProgress:
    """The same for people."""
    return MigrationProgress(
        elapsed_s=elapsed_s,
        total_bytes=stats.get("data_total", 0),
        remaining_bytes=stats.get("data_remaining", 0),
        moved_bytes=stats.get("data_processed", 0),
        dirty_bytes_per_s=stats.get("memory_dirty_rate", 0) * stats.get("memory_page_size", 4096),
        iteration=stats.get("memory_iteration", 0),
        throttle_ratio=stats.get("auto_converge_throttle", 0) / 100,
    )
