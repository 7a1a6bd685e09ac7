"""What every test shares."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    """Programs that tests start must hear Ctrl-C, also where the tests themselves run in the background.

    A shell makes background jobs ignore it, and what they start inherits that.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
