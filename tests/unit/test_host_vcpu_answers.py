"""What the agent answers of vCPUs: whole, of one VM, in sums; over its socket, as commands ask."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests import builders
from tests.cli_samples import WALL_S
from tests.host_doubles import HostInMemory, JumpingClock, make_loop, make_service
from tests.vcpu_samples import floating, pcpus, pinned, status, vm

from vmpack.cli import explain_vcpus
from vmpack.host import vcpu_answers
from vmpack.host.client import AgentClient
from vmpack.host.peer import Rights
from vmpack.host.server import Server
from vmpack.host.vcpu_loop import CHANGES_KEPT
from vmpack.model.codec import dumps
from vmpack.model.vcpu import RememberedVcpus, VcpuStatus

UUID = "uuid-of-web"


@pytest.fixture
def seen() -> VcpuStatus:
    """`web` has just left pCPU 0, where `db` stays."""
    return status(
        pcpus(2),
        vm("web", pinned(0, 0, 0.5, 0.5), floating(1, 1, 0.0)),
        vm("db", pinned(0, 0, 0.475, 0.5), pinned(1, 0, 0.1)),
    )


@pytest.fixture
def client(seen: VcpuStatus, tmp_path: Path) -> Iterator[AgentClient]:
    """Asks an agent that has seen this."""
    host = HostInMemory(JumpingClock(), builders.guest("web"))
    service = make_service(host, make_loop(host), tmp_path / "state", seen)
    server = Server(tmp_path / "agent.sock", service, Rights(None, False))
    server.start()
    yield AgentClient(tmp_path / "agent.sock")
    server.stop()


def test_one_vms_answer_explains_it_as_the_whole_does(client: AgentClient, seen: VcpuStatus) -> None:
    """`explain` would leave out a reason, or the change that was just made."""
    narrow = client.vcpus(UUID)

    for explain in (explain_vcpus.record, explain_vcpus.lines):
        assert explain(narrow, UUID, WALL_S + 2) == explain(seen, UUID, WALL_S + 2)
    assert narrow.changed and narrow.interval is not None and narrow.interval.outcomes


def test_one_vms_answer_has_nothing_of_the_others(client: AgentClient) -> None:
    """On a host with hundreds of VMs each `explain` would carry all of them over the socket."""
    assert "uuid-of-db" in dumps(client.vcpus())
    assert "uuid-of-db" not in dumps(client.vcpus(UUID))


def test_a_vm_that_was_not_seen_yet_has_no_vcpus(client: AgentClient) -> None:
    """Right after its start a VM's memory must be explained all the same."""
    assert explain_vcpus.record(client.vcpus("uuid-of-new"), "uuid-of-new", WALL_S) is None


def test_the_whole_answer_leaves_out_the_memory_alone(client: AgentClient, seen: VcpuStatus) -> None:
    """`top --cpus` would miss a pCPU; or carry what nobody looks at."""
    assert seen.interval is not None and seen.interval.plan.remembered.vms
    plan = replace(seen.interval.plan, remembered=RememberedVcpus())

    assert client.vcpus() == replace(seen, interval=replace(seen.interval, plan=plan))


def test_the_summary_has_the_sums_after_the_changes(client: AgentClient) -> None:
    """`status` would show the host as it was before it was put right."""
    told = client.vcpu_summary()

    assert told.sums is not None
    assert (told.mode, told.last_error, told.sums.wall_s) == ("balance", None, WALL_S)
    assert (told.sums.pcpus, told.sums.vms, told.sums.vcpus, told.sums.pins) == (2, 2, 4, 3)
    assert told.sums.target_points == 5.0 and told.sums.std_points < 5.0


def test_a_change_counts_for_an_hour_and_a_full_list_is_told(seen: VcpuStatus) -> None:
    """A busy host would be told as a calm one, because older changes are not kept."""
    many = replace(seen, changed=seen.changed[:1] * CHANGES_KEPT)

    for told, now_s, count, more in (
        (seen, WALL_S + 3599, len(seen.changed), False),
        (seen, WALL_S + 3601, 0, False),
        (many, WALL_S + 60, CHANGES_KEPT, True),
        (many, WALL_S + 3601, 0, False),
    ):
        found = vcpu_answers.summary(told, now_s)
        assert (found.changed_last_hour, found.more_changed) == (count, more)


def test_before_the_first_turn_there_is_an_answer(seen: VcpuStatus) -> None:
    """Asked right after the start there is nothing to show, and no reason to fail."""
    young = replace(seen, interval=None, changed=())

    assert vcpu_answers.whole(young) == vcpu_answers.of_vm(young, UUID) == young
    assert vcpu_answers.summary(young, WALL_S).sums is None
