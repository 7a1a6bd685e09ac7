"""`vmpack agent` as a service whose libvirt is not there yet, as a real process."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.waiting import PATIENCE_S, eventually

HOST = "<node><cpu><mhz>1</mhz><model>x</model></cpu></node>"


class Service:
    """The agent below a stand-in for systemd; its libvirt is the test driver, whose file may be missing."""

    def __init__(self, folder: Path) -> None:
        self.host_file, self.socket_file = folder / "host.xml", folder / "run/agent.sock"
        (folder / "empty.toml").write_text("")
        self.told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.told.bind(str(folder / "notify"))
        self.told.settimeout(PATIENCE_S)
        words = [
            "agent",
            "--interval",
            "0.5",
            "--connect",
            f"test://{self.host_file}",
            "--config",
            "empty.toml",
        ]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "vmpack.cli.main", *words, "--run-dir", "run", "--state-dir", "state"],
            cwd=folder,
            env=os.environ | {"NOTIFY_SOCKET": str(folder / "notify")},
            stderr=subprocess.DEVNULL,
        )

    def says(self, what: str) -> None:
        """Wait until systemd has been told this."""
        while what not in self.told.recv(4096).decode():
            pass


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """Started while libvirt is not there, and ended with the test."""
    pytest.importorskip("libvirt", reason="the libvirt module is missing here")
    made = Service(tmp_path)
    yield made
    made.process.kill()
    made.process.wait()
    made.told.close()


def test_it_waits_for_libvirt(service: Service) -> None:
    """After an outage at the wrong moment a host would stay without its agent until a person comes."""
    service.says("READY=1")
    service.says("STATUS=waiting")
    service.host_file.write_text(HOST)
    eventually("it works", service.socket_file.exists)


def test_it_can_be_stopped_while_it_waits(service: Service) -> None:
    """Shutting the machine down would wait for a service that waits for libvirt."""
    service.says("STATUS=waiting")
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(PATIENCE_S) == 0
