"""A release without an agent: what it promises beyond the memory that it gives back."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests import builders
from tests.host_doubles import HostInMemory, JumpingClock, make_loop, make_release, turns

from vmpack.config import Config, load
from vmpack.errors import AlreadyRunningError
from vmpack.host import offline
from vmpack.host.lessons import Lessons
from vmpack.host.lock import host_locks
from vmpack.host.state import State
from vmpack.model.action import Outcome
from vmpack.model.learned import Learned
from vmpack.model.plan import Plan
from vmpack.units import MIB


class Libvirt:
    """The connection: named, and closed at the end."""

    closed = False

    def call(self, _what: str, _function: Any) -> list[Any]:
        """No VM has pins."""
        return []

    def identity(self) -> str:
        """See Hypervisor."""
        return "this"

    def close(self) -> None:
        """See Hypervisor."""
        self.closed = True


@dataclasses.dataclass
class PartsInMemory:
    """What real_parts would make, over a host in memory."""

    host: HostInMemory
    state: State
    hypervisor: Libvirt = dataclasses.field(default_factory=Libvirt)

    def __post_init__(self) -> None:
        self.source = self.driver = self.host
        self.release = make_release(self.host)
        self.lessons = Lessons(self.host)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A configuration with a state directory of its own."""
    return dataclasses.replace(load([]), state_dir=tmp_path / "state", settings=builders.EAGER)


@pytest.fixture
def parts(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PartsInMemory]:
    """Two packed VMs whose agent is dead."""
    host = HostInMemory(JumpingClock(), builders.guest("web1"), builders.guest("web2"))
    turns(make_loop(host), 4, host.clock)
    host.plans.clear()
    made = PartsInMemory(host, State(config.state_dir))
    monkeypatch.setattr(offline, "real_parts", lambda _config: made)
    monkeypatch.setattr("vmpack.host.lock.default_run_dir", lambda: tmp_path / "run")
    yield made
    assert made.hypervisor.closed


def balloons(parts: PartsInMemory) -> list[int]:
    """How large the VMs are, in MiB."""
    return [guest.balloon_bytes // MIB for guest in parts.host.guests.values()]


def test_releasing_all_leaves_the_host_frozen(parts: PartsInMemory, config: Config) -> None:
    """Promise 6: the next agent must not take back at once what the administrator asked for."""
    parts.host.learned["uuid-web1"] = Learned(0.0, 1, 0.0, (1.0,))
    given = offline.release_offline(config, None)

    assert balloons(parts) == [256, 256] and given.still_packed == ()
    assert State(config.state_dir).frozen()
    assert parts.host.learned == {"uuid-web1": None}


def test_one_vm_is_held_and_the_host_not_frozen(parts: PartsInMemory, config: Config) -> None:
    """The next agent must leave this VM alone, and go on with its neighbours."""
    offline.release_offline(config, "web1")

    assert balloons(parts)[0] == 256 > balloons(parts)[1]
    assert parts.host.named("web1").policy.hold_until_s == offline.FOR_EVER_S
    assert not State(config.state_dir).frozen()


@pytest.mark.parametrize("vm", [None, "web1"])
def test_it_refuses_while_an_agent_runs(vm: str | None, parts: PartsInMemory, config: Config) -> None:
    """Promise 3: the agent would pack again what is being given back, and never know of it."""
    with host_locks("this", config.state_dir), pytest.raises(AlreadyRunningError):
        offline.release_offline(config, vm)

    assert parts.host.plans == [] and not State(config.state_dir).frozen()
    assert parts.host.named("web1").policy.hold_until_s is None


def test_no_agent_can_start_meanwhile(
    parts: PartsInMemory, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent that the service manager restarts in the middle of it would work against it."""
    carry_out, refused = parts.host.carry_out, []

    def start_an_agent(plan: Plan) -> tuple[Outcome, ...]:
        with pytest.raises(AlreadyRunningError) as caught, host_locks("this", config.state_dir):
            pass
        refused.append(caught.value)
        return carry_out(plan)

    monkeypatch.setattr(parts.host, "carry_out", start_an_agent)
    offline.release_offline(config, None)

    assert len(refused) == 1


def test_a_state_directory_of_somebody_else_keeps_no_memory_from_a_vm(
    parts: PartsInMemory, config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    """The VMs come first; that the next agent may pack them again is said."""
    config.state_dir.mkdir()
    config.state_dir.chmod(0o777)

    offline.release_offline(config, None)

    assert balloons(parts) == [256, 256]
    assert "may pack these VMs again" in caplog.text
