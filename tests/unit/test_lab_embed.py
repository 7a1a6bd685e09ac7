"""The embedded libvirt's surroundings, without libvirt."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vmpack.lab import embed
from vmpack.lab.embed import EmbeddedLibvirt
from vmpack.lab.image import image_cache
from vmpack.lab.state import StateFolder


def test_an_ordinary_users_libvirt_needs_no_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """libvirt would want to write below the caller's HOME, which may be root's, or not be there at all."""
    monkeypatch.setattr(embed, "start_event_loop", lambda: None)
    monkeypatch.setattr(os, "environ", {**os.environ, "HOME": str(tmp_path), "VMPACK_CACHE_DIR": ""})
    os.environ.pop("XDG_CACHE_HOME", None)
    cache = image_cache()
    state = StateFolder(tmp_path / "lab")
    state.prepare()

    EmbeddedLibvirt(state, as_root=False).stop()

    names = ("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR")
    assert all(Path(os.environ[name]).is_relative_to(state.root) for name in names)
    assert image_cache() == cache  # else each run would download the image
