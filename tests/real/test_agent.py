"""The agent as administrators meet it, on real guests: packing, stopping, crashing, reloading, rights."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import libvirt
import pytest

from tests.real.agent_process import (
    QUICK,
    AgentProcess,
    balloon_bytes,
    make_whole,
    nominal_bytes,
    packed,
    stats_period_set,
    whole,
)
from tests.waiting import PATIENCE_S, eventually
from vmpack.errors import VmpackError
from vmpack.host.client import AgentClient
from vmpack.lab.guest_spec import GuestSpec
from vmpack.lab.lab import Lab, LabGuest
from vmpack.model.policy_namespace import POLICY_NAMESPACE
from vmpack.units import MIB

NOBODY = 65534


@pytest.fixture(scope="module")
def two(lab: Lab) -> Iterator[list[LabGuest]]:
    """Two idle guests for the whole file; each test finds them whole."""
    guests = lab.start(*(GuestSpec(f"agent-{number}", memory_bytes=160 * MIB) for number in (1, 2)))
    lab.wait_ready()
    yield guests
    for guest in guests:
        guest.destroy()


@pytest.fixture(autouse=True)
def made_whole(two: list[LabGuest]) -> Iterator[None]:
    """After each test, whatever it left: full balloons, no statistics, no policy."""
    yield
    for guest in two:
        guest.domain.setMemoryStatsPeriod(0)
        with suppress(libvirt.libvirtError):
            guest.domain.setMetadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, None, None, POLICY_NAMESPACE, 0)
        make_whole(guest)


@pytest.fixture
def agent(lab: Lab, two: list[LabGuest], tmp_path: Path) -> Iterator[AgentProcess]:
    """An agent that works."""
    with AgentProcess(tmp_path, lab.uri) as running:
        running.ready()
        yield running


def vmpack(*arguments: str) -> subprocess.CompletedProcess[str]:
    """One command line, to its end."""
    argv = [sys.executable, "-m", "vmpack.cli.main", *arguments]
    return subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE_S, check=False)


def test_it_packs_idle_guests_and_gives_all_back_when_stopped(
    agent: AgentProcess, two: list[LabGuest]
) -> None:
    """The product in one sentence; promise 2. Statistics periods go back to what they were, too."""
    eventually("both are packed", lambda: all(packed(guest) for guest in two))
    eventually("it says so", lambda: agent.client.status().interval.plan.offer.packed_bytes > 20 * MIB)  # type: ignore[union-attr]

    assert agent.stop() == 0

    assert all(whole(guest) for guest in two), agent.log
    assert not any(stats_period_set(guest) for guest in two)
    assert "given back" in agent.log and "Traceback" not in agent.log
    assert not agent.client.socket_path.exists()


def test_a_guest_that_wants_memory_gets_it_back(agent: AgentProcess, two: list[LabGuest]) -> None:
    """The other half of the promise: nothing in the guest is killed because vmpack had packed it."""
    hungry = two[0]
    eventually("it is packed", lambda: packed(hungry))

    hungry.control.load_tmpfs(60 * MIB, 5 * MIB)
    eventually("it grows", lambda: balloon_bytes(hungry) > nominal_bytes(hungry) - 16 * MIB)

    assert hungry.control.oom_kills() == 0
    told = agent.client.explain(hungry.name)
    assert told.plan.used_bytes and told.plan.reasons


def test_a_second_agent_is_refused(agent: AgentProcess, lab: Lab, tmp_path: Path) -> None:
    """Promise 3: whatever directories and spelling of the address the second one uses."""
    (tmp_path / "second").mkdir()
    with AgentProcess(tmp_path / "second", lab.uri + "&no_verify=1") as second:
        code = second.process.wait(PATIENCE_S)

    assert code == 75
    assert f"process {agent.process.pid} holds" in second.log and "Traceback" not in second.log
    agent.pass_turns(1)


def test_observe_mode_changes_nothing(lab: Lab, two: list[LabGuest], tmp_path: Path) -> None:
    """Promise 1, on real guests: it says what it would do, and does none of it, also when it stops."""
    two[0].domain.setMemoryStatsPeriod(1)
    balloons = [balloon_bytes(guest) for guest in two]

    with AgentProcess(tmp_path, lab.uri, "--observe") as watching:
        watching.ready()

        def would_shrink() -> bool:
            interval = watching.client.status().interval
            assert interval is not None and interval.outcomes == ()
            return any(action.kind == "set_memory" for action in interval.plan.actions)

        eventually("it would shrink", would_shrink)
        watching.pass_turns(3)
        assert watching.stop() == 0

    assert [balloon_bytes(guest) for guest in two] == balloons
    assert [stats_period_set(guest) for guest in two] == [True, False]


def test_a_bad_configuration_on_reload_leaves_the_old_one(agent: AgentProcess) -> None:
    """A typing error in the file of a running host must cost one line in the log, nothing else."""
    agent.config_path.write_text(QUICK + 'shares = "many"\n[publish]\nhistory_day = 3\n')
    agent.process.send_signal(signal.SIGHUP)
    eventually("it refuses", lambda: "the old configuration stays in force" in agent.log)
    agent.pass_turns(2)
    assert "memory.shares: found 'many'" in agent.log
    assert "did you mean publish.history_days?" in agent.log
    assert agent.client.status().interval_s == 0.5

    agent.config_path.write_text(QUICK.replace("0.5", "0.7"))
    agent.process.send_signal(signal.SIGHUP)
    eventually("it takes the good one", lambda: agent.client.status().interval_s == 0.7)
    agent.pass_turns(2)


def test_an_agent_told_to_observe_gives_back_what_it_took(agent: AgentProcess, two: list[LabGuest]) -> None:
    """A reload that only meant to stop changes would leave the VMs small for ever."""
    eventually("both are packed", lambda: all(packed(guest) for guest in two))
    agent.config_path.write_text("[agent]\nobserve_only = true\n" + QUICK)
    agent.process.send_signal(signal.SIGHUP)
    eventually("it observes", lambda: agent.client.status().observe_only)

    assert agent.stop() == 0
    assert all(whole(guest) for guest in two), agent.log


def test_after_a_crash_the_next_one_goes_on_and_gives_back(agent: AgentProcess, two: list[LabGuest]) -> None:
    """kill -9 is what the host's OOM killer does: nothing that was borrowed may be forgotten."""
    eventually("both are packed", lambda: all(packed(guest) for guest in two))
    agent.process.kill()
    agent.process.wait()
    assert all(packed(guest) for guest in two)

    agent.restart()
    agent.ready()
    assert "going on with 2 remembered VMs" in agent.log
    assert agent.stop() == 0

    assert all(whole(guest) for guest in two), agent.log
    assert not any(stats_period_set(guest) for guest in two)


def test_release_works_without_an_agent(agent: AgentProcess, two: list[LabGuest], lab: Lab) -> None:
    """Promise 6: the administrator gets the memory back with the agent dead, and it stays back."""
    where = ("--connect", lab.uri, "--run-dir", str(agent.run_dir), "--state-dir", str(agent.state_dir))
    eventually("both are packed", lambda: all(packed(guest) for guest in two))
    agent.process.kill()
    agent.process.wait()

    done = vmpack("release", "--all", *where)

    assert done.returncode == 0, done.stdout + done.stderr
    assert all(whole(guest) for guest in two)
    agent.restart()
    agent.ready()
    agent.pass_turns(6)
    assert all(whole(guest) for guest in two)


def test_release_all_through_the_agent_freezes_until_told_otherwise(
    agent: AgentProcess, two: list[LabGuest]
) -> None:
    """Promise 6: one command ends all packing on this host, whatever the agent thinks of it."""
    eventually("both are packed", lambda: all(packed(guest) for guest in two))

    given = agent.client.release(None)
    assert given.still_packed == () and given.given_bytes > 20 * MIB
    agent.pass_turns(6)
    assert all(whole(guest) for guest in two)

    agent.client.freeze(False)
    eventually("packed again", lambda: any(packed(guest) for guest in two))


def test_a_held_vm_is_left_alone_by_the_very_next_interval(agent: AgentProcess, two: list[LabGuest]) -> None:
    """A hold that takes effect some intervals later would let a shrink slip through."""
    eventually("both are packed", lambda: all(packed(guest) for guest in two))
    agent.client.release(two[0].name)
    agent.client.set_policy(two[0].name, {"shares": 3000})
    agent.pass_turns(6)

    assert whole(two[0]) and packed(two[1])
    policy = agent.client.explain(two[0].name).guest.policy
    assert policy.shares == 3000 and policy.hold_until_s is not None

    agent.client.hold(two[0].name, 0)
    eventually("packed again", lambda: packed(two[0]))


def test_guests_come_and_go(agent: AgentProcess, lab: Lab) -> None:
    """VMs start and end all day; neither may cost the others an interval."""
    (guest,) = lab.start(GuestSpec("comes-and-goes"))
    try:
        eventually("it is seen", lambda: "comes-and-goes" in names(agent.client))
        lab.wait_ready()
        eventually("it reports", lambda: agent.client.explain("comes-and-goes").guest.stats is not None)
    finally:
        guest.destroy()
    eventually("it is gone", lambda: "comes-and-goes" not in names(agent.client))
    agent.pass_turns(2)

    assert agent.client.status().last_error is None and "Traceback" not in agent.log


def names(client: AgentClient) -> set[str]:
    """The VMs of the newest interval."""
    interval = client.status().interval
    assert interval is not None
    return {guest.name for guest in interval.snapshot.guests}


def test_memory_coordinator_is_the_same_loop(lab: Lab, two: list[LabGuest], tmp_path: Path) -> None:
    """The seed's program: an interval and nothing else, readable lines, Ctrl-C gives back."""
    config = tmp_path / "vmpack.toml"
    config.write_text("[memory]\ncalm_s = 1\nshrink_step_ratio = 1\n")
    argv = [sys.executable, "-m", "vmpack.cli.memory_coordinator", "0.5", "--connect", lab.uri]
    argv += ["--config", str(config), "--run-dir", str(tmp_path / "run"), "--state-dir", str(tmp_path / "s")]
    with (tmp_path / "out").open("wb") as out:
        process = subprocess.Popen(argv, stdout=out, stderr=subprocess.STDOUT)
    try:
        eventually("both are packed", lambda: all(packed(guest) for guest in two))
        assert AgentClient(tmp_path / "run" / "agent.sock").status().interval_s == 0.5
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == 130
    finally:
        process.kill()
        process.wait()

    said = (tmp_path / "out").read_text()
    assert all(whole(guest) for guest in two), said
    assert "agent-1: 160 MiB -> " in said and "given back" in said and "Traceback" not in said


def as_user(user_id: int, ask: Callable[[], object]) -> str:
    """What an ordinary user gets: "ok", or the error's exit code and message."""
    end, own = os.pipe()
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setgid(user_id)
        os.setuid(user_id)
        try:
            ask()
            text = "ok"
        except VmpackError as error:
            text = f"{error.exit_code} {error.message}"
        os.write(own, text.encode())
        os._exit(0)
    os.close(own)
    os.waitpid(child, 0)
    with os.fdopen(end) as pipe:
        return pipe.read()


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
@pytest.mark.parametrize(
    ("config", "reads", "changes"),
    [
        ("", "77 no right to use", "77 no right to use"),
        ('[agent]\nsocket_group = "nogroup"\n', "ok", "77 user 65534 may not change"),
        ('[agent]\nsocket_group = "nogroup"\nsocket_group_may_change = true\n', "ok", "ok"),
    ],
)
def test_ordinary_users_may_only_what_the_configuration_says(
    config: str, reads: str, changes: str, lab: Lab
) -> None:
    """Promise 7: another user of the host can neither look nor change until the administrator says so."""
    folder = Path(tempfile.mkdtemp(prefix="vmpack-test-", dir="/tmp"))
    folder.chmod(0o755)
    try:
        with AgentProcess(folder, lab.uri, "--observe", config=QUICK + config) as running:
            running.ready()

            assert as_user(NOBODY, running.client.status).startswith(reads)
            assert as_user(NOBODY, running.client.metrics).startswith(reads)
            assert as_user(NOBODY, lambda: running.client.freeze(False)).startswith(changes)
            assert running.stop() == 0
    finally:
        shutil.rmtree(folder)


def test_the_service_manager_is_told_of_every_step(lab: Lab, two: list[LabGuest], tmp_path: Path) -> None:
    """systemd starts, watches, reloads and stops by these words; one missing and it kills the agent."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(PATIENCE_S)

        def heard(word: str) -> str:
            while not (said := manager.recv(65536).decode()).startswith(word):
                pass
            return said

        (tmp_path / "log").touch()
        stream = (tmp_path / "log").stat()
        journal = f"{stream.st_dev}:{stream.st_ino}"
        environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "JOURNAL_STREAM": journal}
        with AgentProcess(tmp_path, lab.uri, "--observe", **environment) as agent:
            assert heard("READY=1")
            assert "STATUS=observing: 2 VMs" in heard("WATCHDOG=1")
            agent.process.send_signal(signal.SIGHUP)
            assert heard("RELOADING=1") and heard("READY=1") and heard("WATCHDOG=1")
            agent.process.send_signal(signal.SIGTERM)
            assert "EXTEND_TIMEOUT_USEC=" in heard("STOPPING=1")
            assert agent.process.wait(PATIENCE_S) == 0

    assert all(line.startswith(("<6>", "<4>")) for line in agent.log.splitlines())


def test_one_look_and_out(lab: Lab, two: list[LabGuest], tmp_path: Path) -> None:
    """`--once --observe` is how the careful try it first: a line, exit code 0, nothing changed."""
    with AgentProcess(tmp_path, lab.uri, "--once", "--observe") as agent:
        assert agent.process.wait(PATIENCE_S) == 0

    assert "2 VMs, packed 0 B of 320 MiB" in agent.log
    assert not any(stats_period_set(guest) for guest in two)


def test_a_taken_run_directory_is_left_as_it_is(agent: AgentProcess, tmp_path: Path) -> None:
    """An agent of another libvirt with the same --run-dir must not take the first one's probe texts away."""
    (tmp_path / "second").mkdir()
    with AgentProcess(tmp_path / "second", "test:///default", "--run-dir", str(agent.run_dir)) as second:
        assert second.process.wait(PATIENCE_S) == 75, second.log

    assert "another agent answers" in second.log
    assert (agent.run_dir / "probe" / "host-system").exists()
    agent.pass_turns(1)


def test_no_libvirt_is_one_clear_error(tmp_path: Path) -> None:
    """A wrong address must name what was tried and what to start, with exit code 69."""
    with AgentProcess(tmp_path, f"qemu+unix:///system?socket={tmp_path}/none") as agent:
        assert agent.process.wait(PATIENCE_S) == 69

    assert str(tmp_path) in agent.log and "Traceback" not in agent.log
    assert len(agent.log.strip().splitlines()) == 2
