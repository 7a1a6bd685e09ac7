"""The guest's image, made from the distribution's packages into an empty cache."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from vmpack.lab.image import GuestImage, build_image


def test_builders_at_the_same_time_agree_and_the_next_one_waits_for_nothing(tmp_path: Path) -> None:
    """Two tests start at once on a fresh machine: neither may see half an image, or build again."""
    with ProcessPoolExecutor(2) as pool:
        first, second = pool.map(build_image, [tmp_path, tmp_path])

    assert first == second
    assert [path.name for path in tmp_path.iterdir()] == [f"image-{first.key}"]
    made_ns = first.initramfs.stat().st_mtime_ns
    assert build_image(tmp_path) == GuestImage(first.kernel, first.initramfs, first.key)
    assert first.initramfs.stat().st_mtime_ns == made_ns
