"""The socket's place in the file system: it comes back when somebody removes it, with the same rights."""

import logging
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests import builders
from tests.host_doubles import HostInMemory, JumpingClock, make_loop, make_service
from tests.waiting import eventually

from vmpack.host.client import AgentClient
from vmpack.host.peer import Rights
from vmpack.host.server import Server


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """The socket of a running server."""
    host = HostInMemory(JumpingClock(), builders.guest("web1"))
    loop = make_loop(host)
    loop.turn()
    place = tmp_path / "run" / "agent.sock"
    running = Server(place, make_service(host, loop, tmp_path / "state"), Rights(None, False))
    running.start()
    yield place
    running.stop()


@pytest.mark.parametrize("folder", [False, True])
def test_a_removed_socket_comes_back(folder: bool, path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A cleaner of /run would else leave an agent that packs VMs and that nobody can tell to stop."""
    for _ in range(2):
        if folder:
            shutil.rmtree(path.parent)
        else:
            path.unlink()
        eventually("it is back", path.exists)

        eventually("it answers", lambda: AgentClient(path).status().interval)
        assert stat.S_IMODE(path.lstat().st_mode) == 0o600

    said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(said) == 2 and all(str(path) in line for line in said)


def test_what_lies_in_its_place_is_left_alone_and_said_once(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A directory that somebody else may write in must not get root's socket; nor may the log fill up."""
    shutil.rmtree(path.parent)
    path.parent.write_text("precious")
    eventually("it is said", lambda: caplog.records)

    path.parent.unlink()
    eventually("it is back, and that is said", lambda: path.exists() and len(caplog.records) > 1)

    assert ["cannot come back" in record.getMessage() for record in caplog.records] == [True, False]
