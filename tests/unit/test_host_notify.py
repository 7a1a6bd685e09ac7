"""The service manager's protocol."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from vmpack.host.notify import Notifier


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """systemd's end of the socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(str(tmp_path / "notify"))
        end.settimeout(10)
        yield end


def test_the_manager_hears_each_step(manager: socket.socket) -> None:
    """Without READY the unit never starts, without WATCHDOG systemd kills a healthy agent."""
    notifier = Notifier({"NOTIFY_SOCKET": manager.getsockname()})

    notifier.ready()
    notifier.alive("2 VMs,\npacked 1 MiB\nWATCHDOG=trigger")
    notifier.reloading()
    notifier.stopping(90)

    said = [manager.recv(4096).decode().splitlines() for _ in range(4)]
    assert said[0] == ["READY=1"]
    assert said[1] == ["WATCHDOG=1", "STATUS=2 VMs, packed 1 MiB WATCHDOG=trigger"]
    assert said[2][0] == "RELOADING=1" and said[2][1].startswith("MONOTONIC_USEC=")
    assert "STOPPING=1" in said[3] and "EXTEND_TIMEOUT_USEC=90000000" in said[3]


def test_abstract_sockets_are_understood() -> None:
    """Containers' managers listen on abstract sockets, written with @."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(b"")
        end.settimeout(10)
        Notifier({"NOTIFY_SOCKET": "@" + end.getsockname()[1:].decode()}).ready()

        assert end.recv(4096) == b"READY=1"


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": "/nowhere/at/all"}])
def test_no_manager_is_no_trouble(environment: dict[str, str]) -> None:
    """From a terminal, or with the manager gone, the agent must run just the same."""
    notifier = Notifier(environment)

    notifier.ready()
    notifier.alive("fine")
    notifier.stopping(1)
