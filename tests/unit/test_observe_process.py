"""Finding a VM's process and its overhead, on a captured and a hand-made /proc."""

from __future__ import annotations

from pathlib import Path

from vmpack.observe.process import (
    NEW_PER_INTERVAL,
    Measured,
    OverheadMeter,
    find_qemus,
    measured,
    parse_smaps,
)
from vmpack.units import KIB, MIB

# From QEMU 7.2 with a guest of 256 MiB; its translated code is mapped larger than the guest.
# Resident in all: guest 227216 kB, translated code 53248 kB, program 9540 kB.
SMAPS = (Path(__file__).parent.parent / "vectors/observe/smaps.txt").read_text()
OVERHEAD = Measured((53248 + 9540) * KIB, round(151552 / 227216, 3))


def more(bytes_: int) -> Measured:
    return OVERHEAD._replace(overhead_bytes=OVERHEAD.overhead_bytes + bytes_)


def add_process(proc: Path, pid: int, *arguments: str, started: str = "555", smaps: str = "") -> None:
    folder = proc / str(pid)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cmdline").write_bytes("\0".join(arguments).encode() + b"\0")
    (folder / "stat").write_text(f"{pid} (qemu (x) y) S " + "0 " * 18 + f"{started} 0 0\n")
    (folder / "smaps").write_text(smaps)


def test_qemus_own_memory_is_told_from_the_guests():
    """Overhead is charged to the host's budget: translated code taken for guest memory would hide it."""
    assert parse_smaps(SMAPS, 256 * MIB) == OVERHEAD


def test_a_mapping_joined_with_its_neighbour_is_still_the_guest():
    """The kernel joins mappings; the whole guest would count as overhead from then on."""
    assert parse_smaps(SMAPS, 252 * MIB) == OVERHEAD


def test_no_mapping_that_fits_is_no_figure():
    """A guess would be worse than none."""
    assert parse_smaps(SMAPS, 512 * MIB) is None
    assert parse_smaps("", 512 * MIB) is None


def test_a_kernel_without_huge_pages_has_none():
    """A missing line of one mapping would be read from the next one, which is QEMU's own."""
    without = SMAPS.replace("AnonHugePages:", "Other:")
    assert parse_smaps(without, 256 * MIB) == OVERHEAD._replace(huge_ratio=0.0)


def test_a_process_is_found_by_its_uuid_argument(tmp_path):
    """A text editor that has the uuid in its command line is not the VM."""
    add_process(tmp_path, 10, "qemu", "-uuid", "u1", "-m", "256")
    add_process(tmp_path, 11, "vim", "u2.xml")
    add_process(tmp_path, 12, "qemu", "-uuid")
    (tmp_path / "self").mkdir()

    found = find_qemus(tmp_path)

    assert {uuid: process.pid for uuid, process in found.items()} == {"u1": 10}


def test_two_processes_that_claim_a_vm_are_both_refused(tmp_path):
    """Any local user can start a program with a VM's uuid in its arguments."""
    add_process(tmp_path, 10, "qemu", "-uuid", "u1")
    add_process(tmp_path, 11, "sleep", "-uuid", "u1")

    assert find_qemus(tmp_path) == {}


def test_a_reused_pid_is_not_measured(tmp_path):
    """Another program's memory would be booked on the VM."""
    add_process(tmp_path, 10, "qemu", "-uuid", "u1", smaps=SMAPS)
    process = find_qemus(tmp_path)["u1"]
    assert measured(tmp_path, process, 256 * MIB) == OVERHEAD

    add_process(tmp_path, 10, "bash", started="777", smaps=SMAPS)

    assert measured(tmp_path, process, 256 * MIB) is None


def test_vms_are_measured_a_few_at_a_time_and_all_in_turn(tmp_path):
    """Measuring 200 guests at once would stop them all for as long as that takes."""
    count = NEW_PER_INTERVAL + 2
    vms = {(f"u{number}", 1): 256 * MIB for number in range(count)}
    for number in range(count):
        add_process(tmp_path, 10 + number, "qemu", "-uuid", f"u{number}", smaps=SMAPS)
    meter = OverheadMeter(tmp_path)

    known = [sum(figure is not None for figure in meter.measure(vms).values()) for _ in range(3)]
    assert known == [NEW_PER_INTERVAL, count, count]

    for number in range(count):
        (tmp_path / f"{10 + number}/smaps").write_text(SMAPS.replace("53248 kB", "53252 kB"))
    changed = [
        sum(figure == more(4 * KIB) for figure in meter.measure(vms).values()) for _ in range(count + 1)
    ]
    assert changed == [*range(1, count + 1), count]


def test_vms_that_leave_are_forgotten_and_a_restarted_one_is_found_again(tmp_path):
    """The agent would keep a dead process's figure for the VM's next life."""
    add_process(tmp_path, 10, "qemu", "-uuid", "u1", smaps=SMAPS)
    meter = OverheadMeter(tmp_path)
    assert meter.measure({("u1", 1): 256 * MIB}) == {("u1", 1): OVERHEAD}
    assert meter.measure({}) == {}

    (tmp_path / "10/cmdline").write_bytes(b"")
    add_process(tmp_path, 20, "qemu", "-uuid", "u1", smaps=SMAPS.replace("53248 kB", "53244 kB"))

    assert meter.measure({("u1", 2): 256 * MIB}) == {("u1", 2): more(-4 * KIB)}


def test_a_vm_that_two_processes_claimed_is_found_once_one_has_ended(tmp_path):
    """A VM that came from another libvirt of the same machine would never be measured."""
    add_process(tmp_path, 10, "qemu", "-uuid", "u1", smaps=SMAPS)
    add_process(tmp_path, 20, "qemu", "-uuid", "u1", smaps=SMAPS)
    meter = OverheadMeter(tmp_path)
    assert meter.measure({("u1", 1): 256 * MIB}) == {("u1", 1): None}

    (tmp_path / "10/cmdline").write_bytes(b"")

    assert meter.measure({("u1", 1): 256 * MIB}) == {("u1", 1): OVERHEAD}
