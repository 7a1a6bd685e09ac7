"""Our probes, run as OpenNebula's client runs them: whatever agent and libvirt do, the host stays well."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import intervals
from tests.opennebula import template
from tests.opennebula.monitord import CATEGORIES
from tests.opennebula.probe_node import HOST_SYSTEM, VM_SNAPSHOT, ProbeNode, nothing_old

SCHEDULERS_OWN = {"FREE_MEMORY", "USED_MEMORY", "FREE_CPU", "USED_CPU", "MEM_USAGE", "MAX_MEM", "TOTAL_MEM"}
ADMINISTRATORS = {"RESERVED_MEM", "RESERVED_CPU", "IM_MAD", "VM_MAD", "NAME", "STATE"}


def turn() -> intervals.Interval:
    """A host of two VMs that OpenNebula runs, and one that it does not."""
    return intervals.interval(
        intervals.guest(1, "one-7", balloon=200), intervals.guest(2, "one-8"), intervals.guest(3, "web")
    )


@pytest.fixture
def node(tmp_path: Path) -> ProbeNode:
    """A node without libvirt, and with no agent yet."""
    return ProbeNode(tmp_path)


@pytest.fixture
def deaf_libvirt(tmp_path: Path) -> Iterator[str]:
    """The address of a libvirt that takes connections and never answers."""
    path = tmp_path / "deaf.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen(64)
        yield f"qemu+unix:///system?socket={path}"


def told(text: str) -> dict[str, template.Value]:
    return dict(template.parse(text))


def test_the_tree_is_what_the_client_needs(node: ProbeNode) -> None:
    """All seven directories, ours beside the stock probes, links that hold on the front-end, modes."""
    tree = node.remotes / "im"
    assert {str(path) for path in CATEGORIES} == {
        str(path.relative_to(tree / "vmpack-probes.d")) for path in (tree / "vmpack-probes.d").glob("*/*")
    }
    links = [path for path in node.remotes.rglob("*") if path.is_symlink()]
    assert links and all(path.exists() and not os.readlink(path).startswith("/") for path in links)
    assert not (tree / "vmpack-probes.d/host/system/linux_host.rb").exists()
    assert node.probe(HOST_SYSTEM).stat().st_mode & 0o777 == 0o755
    library = node.node / "vmpack"
    assert library.is_dir() and not any(os.access(path, os.X_OK) for path in library.iterdir())


def test_a_host_starts_and_is_told_of(node: ProbeNode) -> None:
    """From `onehost create` to packed memory in `onehost show` and `onevm show`."""
    node.publish(turn())
    host, client = node.cloud(7, 8)
    client.start()
    messages = client.turn()
    assert host.state == "MONITORED" and all(message.succeeded for message in messages)
    assert host.told("TOTALMEMORY") == str(turn().snapshot.memory_total_bytes // 1024)
    assert host.told("PACKEDMEMORY") == str(56 * 1024) and host.told("VMPACK_STATE") == "ACTIVE"
    assert host.vm_told(7, "REALMEMORY") == str(200 * 1024) and host.vm_told(8, "PACKEDMEMORY") == "0"


@pytest.mark.parametrize("order", [1, -1])
def test_capacity_is_told_once_in_any_order(node: ProbeNode, order: int) -> None:
    """The first of two values counts, and before 7.0 the order of probes is any."""
    node.publish(turn())
    host, client = node.cloud(order=order)
    text = client.run(HOST_SYSTEM).text
    client.start()
    assert [name for name, _ in template.parse(text)].count("TOTALMEMORY") == 1
    assert host.told("TOTALMEMORY") == str(turn().snapshot.memory_total_bytes // 1024)


def test_no_name_is_somebody_elses(node: ProbeNode) -> None:
    """A name of the scheduler's or the administrator's would be read in place of the real one."""
    node.publish(turn())
    for text in (node.print(HOST_SYSTEM), node.print(VM_SNAPSHOT)):
        assert not {name for name, _ in template.parse(text)} & (SCHEDULERS_OWN | ADMINISTRATORS)
    _, client = node.cloud()
    assert "vmpack" not in client.run("host/monitor").text.lower()
    assert client.run("vm/status").text.count("SYNC_STATE") == 1


def test_the_stock_probes_names_are_all_told(node: ProbeNode) -> None:
    """Ours takes the stock probe's place: what it would have said must not vanish."""
    stock = subprocess.run(
        [str(node.node / "im/kvm-probes.d/host/system/linux_host.rb")],
        capture_output=True,
        encoding="ascii",
        check=True,
    ).stdout
    node.publish(turn())
    fresh = told(node.print(HOST_SYSTEM))
    node.text_path(HOST_SYSTEM).unlink()
    fallback = told(node.print(HOST_SYSTEM))
    assert told(stock).keys() <= fresh.keys() == fallback.keys()
    assert {name: fallback[name] for name in ("HYPERVISOR", "TOTALCPU", "TOTALMEMORY")} == {
        name: told(stock)[name] for name in ("HYPERVISOR", "TOTALCPU", "TOTALMEMORY")
    }


Damage = Callable[[Path], object]


def relink(path: Path) -> None:
    """Put a link to the very text in the text's place."""
    path.rename(path.with_name("moved"))
    path.symlink_to("moved")


def from_another_boot(path: Path) -> None:
    """Let it be of a boot that was longer than this one is yet."""
    later = r"# vmpack 9\g<1> 9\g<2> "
    path.write_text(re.sub(r"# vmpack (\d+) (\d+) ", later, path.read_text(), count=1))


def without_numbers(path: Path) -> None:
    """Take the time and the length from its first line."""
    path.write_text(re.sub(r" \d+ \d+ \d+\n", " x y z\n", path.read_text(), count=1))


DAMAGES: dict[str, Damage] = {
    "gone": lambda path: path.unlink(),
    "empty": lambda path: path.write_text(""),
    "cut short": lambda path: path.write_text(path.read_text()[:-20]),
    "only its first line": lambda path: path.write_text(path.read_text().splitlines()[0] + "\n"),
    "without a first line": lambda path: path.write_text(path.read_text().split("\n", 1)[1]),
    "no numbers": without_numbers,
    "before a reboot": from_another_boot,
    "a link": relink,
    "a directory": lambda path: (path.unlink(), path.mkdir()),
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_text_that_cannot_be_trusted_is_not_printed(node: ProbeNode, damage: Damage) -> None:
    """Half a text, or one that is not of now, would tell the scheduler of room that is not there."""
    node.publish(turn())
    for category in (HOST_SYSTEM, VM_SNAPSHOT):
        damage(node.text_path(category))
        text = node.print(category)
        if category == HOST_SYSTEM:
            assert told(text)["VMPACK_STATE"] == "NO_LIBVIRT" and told(text)["TOTALMEMORY"] != "0"
        else:
            assert node.tells_nothing_old()


def test_a_dead_agents_text_is_not_printed(node: ProbeNode) -> None:
    """What an agent said before it died is soon no longer so."""
    node.publish(turn(), holds_s=3600)
    assert told(node.print(HOST_SYSTEM))["PACKEDMEMORY"] == str(56 * 1024)
    node.publish(turn(), holds_s=-2)
    assert told(node.print(HOST_SYSTEM))["PACKEDMEMORY"] == "0"
    assert node.tells_nothing_old()


def test_a_stepped_clock_changes_nothing(node: ProbeNode) -> None:
    """A text must neither age nor live on because somebody set the clock: its file's times do not count."""
    node.publish(turn())
    for wall_s in (0, time.time() + 10 * 365 * 86400):
        os.utime(node.text_path(HOST_SYSTEM), (wall_s, wall_s))
        assert told(node.print(HOST_SYSTEM))["VMPACK_STATE"] == "ACTIVE"


def test_a_host_without_vms_prints_no_vm(node: ProbeNode) -> None:
    """An empty text is a fresh one: libvirt need not be asked."""
    node.publish(intervals.interval())
    assert node.print(VM_SNAPSHOT) == ""


def test_all_limits_together_are_within_those_of_a_start(node: ProbeNode) -> None:
    """All probes run once while a host starts; past 90 s that fails, and the host is in ERROR."""
    probe = node.probe(HOST_SYSTEM).read_text()
    library = [(node.node / "vmpack" / name).read_text() for name in ("probe.sh", "fallback.py")]
    fallback_s, stock_s = (
        sum(map(int, found.groups()))
        for text in (library[0], probe)
        if (found := re.search(r"timeout -k ([0-9]+) ([0-9]+) ", text))
    )
    tries = re.search(r"^TRIES_S = \(([0-9]+), ([0-9]+)\)$", library[1], re.MULTILINE)
    assert tries and sum(map(int, tries.groups())) < fallback_s - 2
    assert fallback_s + stock_s + fallback_s < 45


def impatient(node: ProbeNode) -> None:
    """Tests of what happens after a limit need not wait for as long as a busy node may need."""
    broken(node, "fallback.py", "TRIES_S = (3, 2)", "TRIES_S = (0.3, 0.2)")
    broken(node, "probe.sh", "timeout -k 1 8", "timeout -k 1 2")


def test_a_deaf_libvirt_holds_nothing_up(tmp_path: Path, deaf_libvirt: str) -> None:
    """A probe that hangs freezes its category for ever."""
    node = ProbeNode(tmp_path, deaf_libvirt)
    impatient(node)
    host, client = node.cloud(7)
    text = node.print(HOST_SYSTEM)
    assert told(text)["VMPACK_STATE"] == "NO_LIBVIRT" and int(str(told(text)["TOTALMEMORY"])) > 0
    assert node.tells_nothing_old()
    client.turn([HOST_SYSTEM, VM_SNAPSHOT])
    assert host.state == "MONITORED" and host.max_kib > 0


def broken(node: ProbeNode, name: str, old: str, new: str) -> None:
    """Change one of our files on the node."""
    path = node.node / "vmpack" / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("probe.sh", "/usr/bin/python3", "/nonexistent/python3"),
        ("fallback.py", "import binascii", "import nothing_of_that_name"),
        ("fallback.py", "import binascii", "import binascii, time\ntime.sleep(600)"),
    ],
    ids=["no Python", "Python that fails", "Python that hangs"],
)
def test_without_python_the_stock_probe_speaks(node: ProbeNode, name: str, old: str, new: str) -> None:
    """Capacity must never vanish: the scheduler would take the host for one without memory."""
    impatient(node)
    broken(node, name, old, new)
    host, client = node.cloud(7, forgets_capacity=True)
    client.start()
    assert host.state == "MONITORED" and host.max_kib > 0
    assert host.told("PACKEDMEMORY") == "0" and host.told("VMPACK_STATE") == "UNKNOWN"
    assert node.print(VM_SNAPSHOT) == ""


def test_without_our_library_the_stock_probe_speaks(node: ProbeNode) -> None:
    """A half-made installation must leave the host as well as it was."""
    for path in (node.node / "vmpack").iterdir():
        path.unlink()
    assert int(str(told(node.print(HOST_SYSTEM))["TOTALMEMORY"])) > 0
    assert node.print(VM_SNAPSHOT) == ""


def test_names_once_told_are_zero_without_the_agent(node: ProbeNode) -> None:
    """OpenNebula never forgets: GPUs and packed memory of a dead agent would be promised for ever."""
    node.publish(turn())
    host, client = node.cloud(7)
    client.start()
    node.publish(turn(), holds_s=-2)
    client.turn([HOST_SYSTEM])
    names = {name for name, _ in host.template if name.startswith(("GPU", "VMPACK", "PACKED", "OFFERED"))}
    assert {name: host.told(name) for name in names} == dict.fromkeys(names, "0") | {
        "VMPACK_STATE": "NO_LIBVIRT",
        "VMPACK_VERSION": "none",
    }
    broken(node, "probe.sh", "/usr/bin/python3", "/nonexistent/python3")
    client.turn([HOST_SYSTEM])
    assert {host.told(name) for name in names} == {"0", "UNKNOWN", "none"}


def test_a_pretended_size_outlives_the_agent(node: ProbeNode) -> None:
    """A host that keeps memory for other things must not grow when its agent dies."""
    conf = node.folder / "etc/conf.d"
    conf.mkdir(parents=True)
    (conf.parent / "vmpack.toml").write_text('[host]\nmemory_bytes = "7GiB"\n')
    assert told(node.print(HOST_SYSTEM))["TOTALMEMORY"] == str(7 * 1024 * 1024)
    (conf / "10.toml").write_text("[host]\nmemory_bytes = 2147483648\n")
    assert told(node.print(HOST_SYSTEM))["TOTALMEMORY"] == str(2 * 1024 * 1024)
    (conf / "20.toml").write_text("not toml")
    assert told(node.print(HOST_SYSTEM))["TOTALMEMORY"] == str(2 * 1024 * 1024)


@pytest.mark.parametrize("category", [HOST_SYSTEM, VM_SNAPSHOT])
def test_a_probe_ends_well_when_nobody_can_take_its_text(node: ProbeNode, category: str) -> None:
    """A full disk or a reader that is gone must not put the host in ERROR either."""
    node.publish(turn())
    command = [str(node.probe(category)), "vmpack", "0", "node-1"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, env=node.environment, stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 0


def test_a_full_disk_leaves_no_old_text(node: ProbeNode) -> None:
    """An agent that can no longer write must be noticed: its last text ends by itself."""
    node.publish(turn(), holds_s=0)
    uptime_s = float(Path("/proc/uptime").read_text().split()[0])
    until_s = int(node.text_path(HOST_SYSTEM).read_text().split()[3])
    assert until_s <= uptime_s
    while float(Path("/proc/uptime").read_text().split()[0]) < until_s + 1:
        time.sleep(0.05)
    assert told(node.print(HOST_SYSTEM))["VMPACK_STATE"] == "NO_LIBVIRT"


def test_texts_that_change_under_the_probe_are_whole(node: ProbeNode) -> None:
    """The agent replaces its text every few seconds, and a stopping one takes it away."""
    node.publish(turn())
    stop = threading.Event()

    def churn() -> None:
        while not stop.is_set():
            for _ in range(20):
                node.publish(turn())
            node.text_path(VM_SNAPSHOT).unlink()

    agent = threading.Thread(target=churn)
    agent.start()
    try:
        texts = {node.print(VM_SNAPSHOT) for _ in range(20)}
    finally:
        stop.set()
        agent.join()
    for text in texts:
        blocks = template.vectors(template.parse(text), "VM")
        assert [block["ID"] for block in blocks] == ["7", "8"] or nothing_old(text)


def test_opennebulas_own_user_can_read_the_texts(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Probes run as oneadmin, not as root: without the rights each one would ask libvirt."""
    folder = tmp_path_factory.mktemp("node")
    for path in (folder, *folder.parents):
        if path != Path("/") and path != Path("/tmp"):
            path.chmod(path.stat().st_mode | 0o055)
    node = ProbeNode(folder)
    node.publish(turn())
    user = "nobody" if os.geteuid() == 0 else None
    assert told(node.print(HOST_SYSTEM, user=user))["VMPACK_STATE"] == "ACTIVE"
    assert node.print(VM_SNAPSHOT, user=user).count("VM=[") == 2


def test_no_background_child_holds_the_output(node: ProbeNode, deaf_libvirt: str) -> None:
    """The client reads to the end of the output: a child that keeps it open would freeze the category."""
    impatient(node)
    node.environment["LIBVIRT_DEFAULT_URI"] = deaf_libvirt
    before = {path.name for path in Path("/proc").iterdir() if path.name.isdigit()}
    node.print(VM_SNAPSHOT)
    left = [
        command
        for path in Path("/proc").iterdir()
        if path.name.isdigit() and path.name not in before
        if str(node.folder) in (command := command_line(path))
    ]
    assert left == []


def command_line(process: Path) -> str:
    try:
        return (process / "cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


@pytest.mark.parametrize("shell", ["dash", "bash --posix"])
def test_any_posix_shell_will_do(node: ProbeNode, shell: str) -> None:
    """/bin/sh is dash on Debian and bash on EL."""
    node.publish(turn())
    for category, said in ((HOST_SYSTEM, "ACTIVE"), (VM_SNAPSHOT, "VM=[")):
        assert node.probe(category).read_text().startswith("#!/bin/sh\n")
        command = [*shell.split(), str(node.probe(category)), "vmpack", "0", "node-1"]
        done = subprocess.run(
            command, env=node.environment, capture_output=True, encoding="ascii", check=True
        )
        assert said in done.stdout and done.stderr == ""
