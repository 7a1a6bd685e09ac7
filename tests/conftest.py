"""What every test shares."""

from __future__ import annotations

import signal

import hypothesis
import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Programs that tests start must hear Ctrl-C, also where the tests themselves run in the background.

    A shell makes background jobs ignore it, and what they start inherits that.

    Properties are tried on the same examples each time, so that no change is held up by what another one
    broke; with the long tests new examples are looked for. None is judged by how long it takes.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    hypothesis.settings.register_profile("everyday", deadline=None, derandomize=True)
    hypothesis.settings.register_profile("seeking", deadline=None)
    hypothesis.settings.load_profile("everyday" if config.getoption("markexpr") == "not long" else "seeking")
