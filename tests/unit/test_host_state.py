"""The state directory: what survives restarts, crashes and broken files."""

import logging
from pathlib import Path

import pytest
from tests import builders
from tests.host_doubles import DECISION

from vmpack.errors import AccessError, VmpackError
from vmpack.host.state import State
from vmpack.model.host import Claim
from vmpack.model.plan import Remembered


def something() -> Remembered:
    """A memory with a guest in it."""
    snapshot = builders.host(builders.guest("g1"))
    return DECISION.plan(snapshot, Remembered(), builders.SETTINGS).remembered


def test_what_is_remembered_survives_a_restart(tmp_path: Path) -> None:
    """After kill -9 the next agent must know what the last one did to whom."""
    State(tmp_path, "boot-1").save(something())

    assert State(tmp_path, "boot-1").remembered() == something()
    assert [path.name for path in tmp_path.iterdir()] == ["remembered.json"]


def test_a_killed_agents_half_file_goes_with_the_next_ones_first(tmp_path: Path) -> None:
    """Each crash in the middle of a write would leave a file in the state directory for ever."""
    (tmp_path / ".remembered.json.abcd1234").write_text("half")

    State(tmp_path, "boot-1").save(something())

    assert [path.name for path in tmp_path.iterdir()] == ["remembered.json"]


def test_a_reboot_ends_it(tmp_path: Path) -> None:
    """Times of another boot's clock would make every cool-down wrong."""
    State(tmp_path, "boot-1").save(something())

    assert State(tmp_path, "boot-2").remembered() == Remembered()


FOREIGN = '{"format":99,"boot_id":"boot-1","remembered":{"guests":{},"scarce":[]}}'


@pytest.mark.parametrize("text", ["", "{", "[]", FOREIGN, "\0\0\0"])
def test_a_broken_file_is_set_aside(text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Promise 4: a torn or foreign state file costs a warning, never the start; its content is kept."""
    path = tmp_path / "remembered.json"
    for number in (1, 2):
        path.write_text(text)
        with caplog.at_level(logging.WARNING):
            assert State(tmp_path, "boot-1").remembered() == Remembered()
        assert (tmp_path / f"remembered.json.broken-{number}").read_text() == text
        assert not path.exists()

    assert "set aside as remembered.json.broken-2" in caplog.text


def test_the_frozen_flag_outlives_everything(tmp_path: Path) -> None:
    """Promise 6: freeze works with the agent dead, and holds until it is taken back."""
    directory = tmp_path / "not" / "there" / "yet"
    State(directory, "boot-1").freeze(True)
    State(directory, "boot-1").freeze(True)

    assert State(directory, "boot-2").frozen()

    State(directory, "boot-2").freeze(False)
    State(directory, "boot-2").freeze(False)
    assert not State(directory, "boot-1").frozen()


def test_claims_are_kept(tmp_path: Path) -> None:
    """A reserve that the administrator claimed must not be offered away after a restart."""
    claims = (Claim("admin", 2**30, "own reserve"), Claim("shop", 2**20, "a bid", 1_800_000_000.0))
    state = State(tmp_path, "boot-1")

    assert state.claims() == ()
    state.save_claims(claims)

    assert State(tmp_path, "boot-2").claims() == claims


def test_a_directory_that_cannot_be_made_is_one_clear_error(tmp_path: Path) -> None:
    """A typing error in --state-dir must name the path and what to do."""
    (tmp_path / "file").write_text("")

    with pytest.raises(VmpackError) as caught:
        State(tmp_path / "file" / "state", "boot-1").prepare()

    assert str(tmp_path) in caught.value.message and caught.value.hint


@pytest.mark.parametrize("name", ["state", "state/journal"])
@pytest.mark.parametrize("kind", ["symlink", "open to all"])
def test_a_directory_that_others_could_write_in_is_refused(name: str, kind: str, tmp_path: Path) -> None:
    """Root's agent would write where somebody else's link points, or believe what he put there."""
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    if kind == "symlink":
        (tmp_path / "elsewhere").mkdir()
        path.symlink_to(tmp_path / "elsewhere")
    else:
        path.mkdir()
        path.chmod(0o777)

    with pytest.raises(AccessError) as caught:
        State(tmp_path / "state", "boot-1").prepare()

    assert str(path) in caught.value.message and "--state-dir" in caught.value.hint


def test_an_unreadable_file_is_said_once_until_it_is_mended(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Claims are read in every interval: one mistake must not fill the log, nor its return be silent."""
    state, path = State(tmp_path, "boot-1"), tmp_path / "claims.json"
    for _ in range(2):
        path.mkdir()
        assert [state.claims() for _ in range(3)] == [()] * 3
        path.rmdir()
        assert state.claims() == ()

    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2 and all("move it away" in text and "dmesg" not in text for text in said)


def test_a_file_in_the_directorys_place_is_said(tmp_path: Path) -> None:
    """`dmesg` holds nothing about a file that is simply in the way."""
    (tmp_path / "state").write_text("")

    with pytest.raises(VmpackError) as caught:
        State(tmp_path / "state", "boot-1").prepare()

    assert "move it away" in caught.value.hint
