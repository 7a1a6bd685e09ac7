"""The commands for a user with the wrong HOME, or with none: one clear line, never a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.everyone import environment_for_everyone

NOBODY = 64999
"""A user whom no host's user database knows."""

DROP = (
    "import os, sys\n"
    f"os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})\n"
    "from vmpack.cli.main import main\n"
    "sys.exit(main(sys.argv[1:]))"
)

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


def as_nobody(words: str, home: Path | None, base: Path) -> subprocess.CompletedProcess[str]:
    """Run a command as a user without rights."""
    base.chmod(0o711)
    environment = environment_for_everyone(**({"HOME": str(home)} if home else {}))
    return subprocess.run(
        [sys.executable, "-c", f"import vmpack.cli.main\n{DROP}", *words.split()],
        env=environment,
        cwd="/",
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize(
    ("words", "codes"),
    [
        ("status", {69, 77}),
        ("top --once", {69, 77}),
        ("freeze", {77}),
        ("freeze --off", {77}),
        ("release --all --dry-run", {69, 77}),
        ("doctor --connect test:///default", {1, 3}),
        ("explain web", {69, 77}),
        ("agent --once --observe", {77}),
        ("check-config", {77}),
    ],
)
def test_a_home_of_somebody_else_is_told(words: str, codes: set[int], tmp_path: Path) -> None:
    """`sudo -u nobody` keeps HOME; a traceback would say nothing about that."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)

    done = as_nobody(words, home, tmp_path)

    assert "Traceback" not in done.stderr
    assert done.returncode in codes, done.stderr
    if words in ("agent --once --observe", "check-config"):
        assert f"{home}/.config/vmpack" in done.stderr and "HOME" in done.stderr


@pytest.mark.parametrize("words", ["check-config", "status", "check-config --default"])
def test_no_home_at_all_is_no_configuration(words: str, tmp_path: Path) -> None:
    """Services often run without HOME, as users that nobody has listed."""
    done = as_nobody(words, None, tmp_path)

    assert "Traceback" not in done.stderr
    assert done.returncode == 0 or words == "status"
