"""The wrappers of VMM actions between a double of oned's executor and stand-ins of the stock actions."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from tests.waiting import eventually
from vmpack.cli.safe_text import shown
from vmpack.clouds.opennebula_policy import read_policy

OURS = Path(__file__).parents[2] / "drivers/opennebula/vmm/vmpack"
ARGUMENTS = {
    "deploy": ["/var/lib/one//datastores/0/12/deployment.0", "node-a"],
    "migrate": ["5a0c7f3e-0000-4000-8000-00000000000c", "node-b", "node-a"],
    "migrate_local": ["one-12", "node-b", "node-a"],
    "save": ["one-12", "/var/lib/one//datastores/0/12/checkpoint", "node-a"],
    "restore": ["/var/lib/one//datastores/0/12/checkpoint", "node-a", "one-12"],
    "resize": ["one-12"],
    "snapshot_revert": ["one-12", "snap 0's"],
}
OUTER = ["12", "node-a"]
"""What oned appends to every call."""
HOOKED = [name for name in ARGUMENTS if name != "migrate_local"]
INPUT = (
    "<VM name='it''s' cost=\"$HOME `id` \\n %s\">\u00fcml\u00e4ut \u2603\n\n  EOT\n</VM>".encode()
    + b"\xff\xfe"
)

STOCK = """#!/bin/sh
cd "$RECORD" || exit 99
printf '%s\\n' "$@" >argv
cat >stdin
echo "${MIGRATE_OPTIONS-unset}" >options
: >began
[ ! -e wait ] || cat wait
cat out
cat err >&2
exit "$(cat code)"
"""
VMPACK = """#!/bin/sh
cd "$RECORD" || exit 99
printf '%s|' "$@" >>asked
echo >>asked
case $3 in before) cat >before.in ;; *) cat >after.in ;; esac
. ./behaviour
"""


class Tree:
    """vmm/kvm with stand-ins, vmm/vmpack with our files, and a stand-in of vmpack."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.record = root / "record"
        self.record.mkdir()
        (root / "vmm/kvm").mkdir(parents=True)
        self.ours = root / "vmm/vmpack"
        shutil.copytree(OURS, self.ours)
        shared = self.ours / "vmpack_action.sh"
        text = shared.read_text()
        assert "limit_s=20" in text and "renew_s=10" in text
        shared.write_text(text.replace("limit_s=20", "limit_s=1").replace("renew_s=10", "renew_s=1"))
        for name in ARGUMENTS:
            self._script(root / f"vmm/kvm/{name}", STOCK)
        self.program = root / "vmpack"
        self._script(self.program, VMPACK)
        # ssh HOST vmpack ARGUMENT...
        self._script(
            root / "bin/ssh",
            '#!/bin/sh\nwhile [ "$1" != vmpack ]; do shift; done\nshift\nexec "$VMPACK_PROGRAM" $*\n',
        )
        self.stock()
        self.vmpack("printf '\\nWORD'")

    def stock(self, code: int = 0, out: str = "", err: str = "") -> None:
        """What the stock actions do from now on."""
        (self.record / "out").write_text(out)
        (self.record / "err").write_text(err)
        (self.record / "code").write_text(str(code))

    def vmpack(self, behaviour: str) -> None:
        """What vmpack does from now on, as shell text."""
        (self.record / "behaviour").write_text(behaviour)

    def command(self, action: str) -> list[str]:
        return [str(self.ours / action), *ARGUMENTS[action], *OUTER]

    def environment(self) -> dict[str, str]:
        path = f"{self.root / 'bin'}:{os.environ['PATH']}"
        return {"PATH": path, "RECORD": str(self.record), "VMPACK_PROGRAM": str(self.program)}

    def run(self, action: str, given: bytes = INPUT) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            self.command(action), input=given, capture_output=True, env=self.environment(), timeout=100
        )

    def seen(self, name: str) -> bytes:
        return (self.record / name).read_bytes()

    def asked(self) -> list[list[str]]:
        path = self.record / "asked"
        return [line.split("|")[:-1] for line in path.read_text().splitlines()] if path.exists() else []

    def _script(self, path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def argv(words: Sequence[str]) -> bytes:
    return "".join(f"{word}\n" for word in words).encode()


@pytest.mark.parametrize("action", ARGUMENTS)
@pytest.mark.parametrize("given", [INPUT, b"", b"x", b"\n", INPUT + b"\n\n\n", INPUT * 4000])
def test_arguments_and_input_arrive_as_they_were(tree: Tree, action: str, given: bytes) -> None:
    """A VM would be deployed, moved or resized by other data than oned's."""
    tree.vmpack("exit 0")
    done = tree.run(action, given)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert tree.seen("argv") == argv([*ARGUMENTS[action], *OUTER])
    assert tree.seen("stdin") == given


@pytest.mark.parametrize("action", ARGUMENTS)
@pytest.mark.parametrize("code", [0, 1, 255])
def test_output_errors_and_exit_code_are_the_stock_ones(tree: Tree, action: str, code: int) -> None:
    """oned would take a failure for a success, or store a wrong deploy id."""
    tree.stock(code, "5a0c7f3e-0000\n", f"ERROR: {action}: Command failed: x\nCould not do it\n")
    done = tree.run(action)
    assert done.returncode == code
    assert done.stdout == b"5a0c7f3e-0000\n"
    assert done.stderr.decode() == f"ERROR: {action}: Command failed: x\nCould not do it\n"


@pytest.mark.parametrize("action", ARGUMENTS)
def test_vmpack_is_asked_before_and_after(tree: Tree, action: str) -> None:
    """Memory would move under a migration, and a hold would last until it ends by itself."""
    tree.stock(7)
    tree.run(action)
    hook = "migrate" if action == "migrate_local" else action
    file = ARGUMENTS["deploy"][0] if action == "deploy" else ""
    expected = [["one-hook", hook, "before", f"--file={file}", "--", "12"]]
    if action != "deploy":
        expected.append(["one-hook", hook, "after", "--code=7", "--token=WORD", "--", "12"])
    assert tree.asked() == expected
    assert tree.seen("before.in") == INPUT


def test_deploy_takes_the_xml_that_vmpack_made(tree: Tree) -> None:
    """No VM of OpenNebula would ever report its use."""
    tree.vmpack("printf '\\n<domain>\\n made \"$ready\" \\n</domain>\\n\\n'")
    tree.stock(0, "uuid\n")
    assert tree.run("deploy").stdout == b"uuid\n"
    assert tree.seen("stdin") == b'<domain>\n made "$ready" \n</domain>\n\n'


SLOW = {
    "hangs": "printf '\\n<domain><na'; exec sleep 1000",
    "ignores the time limit": "printf '\\n<domain><na'; trap '' TERM; while :; do sleep 1; done",
}
BROKEN = {
    "crashes": "printf '\\n<domain><na'; echo Traceback >&2; exit 1",
    "is killed": "kill -9 $$",
    "warns": "printf 'the VM is gone\\n'",
}


@pytest.mark.parametrize(
    ("action", "trouble"),
    [
        *((action, trouble) for action in ARGUMENTS for trouble in BROKEN),
        *((action, trouble) for action in ("deploy", "migrate_local") for trouble in SLOW),
    ],
)
def test_trouble_in_vmpack_is_one_warning(tree: Tree, action: str, trouble: str) -> None:
    """An action of the cloud would fail, or its error be garbled, because of vmpack."""
    tree.vmpack({**BROKEN, **SLOW}[trouble])
    tree.stock(3, "out\n", "Could not do it\n")
    done = tree.run(action)
    assert (done.returncode, done.stdout) == (3, b"out\n")
    warning, *rest = sorted(done.stderr.decode().splitlines(), reverse=True)
    assert warning.startswith(f"WARN: vmpack: {action}: ")
    assert rest == ["Could not do it"]
    assert tree.seen("stdin") == INPUT


@pytest.mark.parametrize("action", HOOKED)
def test_without_vmpack_the_stock_action_is_all(tree: Tree, action: str) -> None:
    """A node where vmpack is not installed yet could run no VMs of this driver, or never say so."""
    tree.program.unlink()
    tree.stock(5, "out", "err\n")
    done = tree.run(action)
    assert (done.returncode, done.stdout) == (5, b"out")
    warning, *rest = done.stderr.decode().splitlines()
    assert warning.startswith(f"WARN: vmpack: {action}: vmpack is not installed") and rest == ["err"]
    assert tree.seen("stdin") == INPUT and tree.seen("argv") == argv([*ARGUMENTS[action], *OUTER])


def test_a_front_end_without_vmpack_still_asks_the_host(tree: Tree) -> None:
    """A VM that is moved from a front-end would lose memory on the way."""
    far = tree.root / "far"
    tree.program.rename(far)
    ssh = tree.root / "bin/ssh"
    ssh.write_text(ssh.read_text().replace('"$VMPACK_PROGRAM"', str(far)))
    done = tree.run("migrate_local")
    assert (done.returncode, done.stderr) == (0, b"")
    assert [asked[2] for asked in tree.asked()] == ["before", "after"]


FORGERY = r"x\nExitCode: 0 EOF_ERR\nERROR: deploy: forged\cno more"


@pytest.mark.parametrize("action", ARGUMENTS)
def test_text_of_owners_is_one_line(tree: Tree, action: str) -> None:
    """An owner could have oned take his failed action for a success, or write what he likes into its log."""
    _, _, faults, _ = read_policy({"VMPACK_FLOOR": FORGERY.replace(r"\n", "\n")}, 2**30, 1000)
    (tree.record / "warning").write_text(f"{shown(faults[0])} {FORGERY}\n")
    tree.vmpack("cat warning")
    tree.stock(1, "", "Could not do it\n")
    command = ["dash", *tree.command(action)]
    done = subprocess.run(command, input=INPUT, capture_output=True, env=tree.environment(), timeout=100)
    warning, stock = done.stderr.decode().splitlines()
    assert (done.returncode, stock) == (1, "Could not do it")
    assert warning.startswith(f"WARN: vmpack: {action}: ") and warning.endswith(FORGERY)


@pytest.mark.parametrize("action", ["migrate", "migrate_local", "save", "resize", "snapshot_revert"])
def test_a_hold_is_kept_up_while_the_stock_action_works(tree: Tree, action: str) -> None:
    """While disks are copied, before libvirt takes the VM over, memory would move again after 30 s."""
    os.mkfifo(tree.record / "wait")
    process = subprocess.Popen(
        tree.command(action), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, env=tree.environment()
    )
    hook = "migrate" if action == "migrate_local" else action
    renewal = ["one-hook", hook, "meanwhile", "--", "12"]
    eventually("it is renewed twice", lambda: tree.asked().count(renewal) >= 2)
    (tree.record / "wait").write_text("")
    _, said = process.communicate(timeout=100)
    assert (process.returncode, said) == (0, b"")
    assert tree.asked()[-1][2] == "after"


def test_a_hold_is_let_go_when_vmpack_says_so_or_the_wrapper_dies(tree: Tree) -> None:
    """A VM would be held on and on by what a dead action left."""
    os.mkfifo(tree.record / "wait")
    tree.vmpack("[ $3 != meanwhile ] || exit 1; printf '\\nWORD'")
    command = tree.command("save")
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, env=tree.environment())
    eventually("it is asked once", lambda: [asked[2] for asked in tree.asked()] == ["before", "meanwhile"])
    (tree.record / "wait").write_text("")
    assert process.wait(timeout=100) == 0
    assert [asked[2] for asked in tree.asked()] == ["before", "meanwhile", "after"]

    tree.vmpack("case $3 in meanwhile) [ -e go ] || exec cat hung ;; esac; printf '\\nWORD'")
    os.mkfifo(tree.record / "hung")
    (tree.record / "asked").unlink()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, env=tree.environment())
    eventually("it is asked", lambda: [asked[2] for asked in tree.asked()] == ["before", "meanwhile"])
    process.kill()
    process.wait()
    (tree.record / "go").touch()
    keepers = ["pgrep", "-f", str(tree.ours / "save")]

    def nobody_renews() -> bool:
        let_go(tree.record / "hung")
        return subprocess.run(keepers, capture_output=True).returncode == 1

    eventually("nobody renews", nobody_renews)
    (tree.record / "wait").write_text("")
    assert [asked[2] for asked in tree.asked()] == ["before", "meanwhile"]


def let_go(pipe: Path) -> None:
    """End what reads from a named pipe, where anybody does: to wait for a reader could be for ever."""
    with suppress(OSError):
        os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))


def test_an_id_that_is_no_number_reaches_no_command(tree: Tree) -> None:
    """Whoever could name a VM could have commands run on the node."""
    command = [str(tree.ours / "save"), "x", "y", "$(touch pwned)", "node-a"]
    done = subprocess.run(command, input=b"", capture_output=True, env=tree.environment(), timeout=100)
    assert done.returncode == 0 and not tree.asked()


@pytest.mark.parametrize("host", ["-oProxyCommand=x", "a b", "", "a;b"])
def test_an_odd_host_is_not_reached_by_ssh(tree: Tree, host: str) -> None:
    """An option in the place of a host name would be run by ssh on the front-end."""
    command = [str(tree.ours / "migrate_local"), "one-12", "node-b", host, *OUTER]
    done = subprocess.run(command, input=b"", capture_output=True, env=tree.environment(), timeout=100)
    assert done.returncode == 0 and not tree.asked()
    assert done.stderr.startswith(b"WARN: vmpack: migrate_local: ")


@pytest.mark.parametrize(
    ("action", "answer", "options"),
    [
        ("migrate", "WORD.auto-converge", b"--auto-converge\n"),
        ("migrate", "WORD", b"unset\n"),
        ("migrate_local", "WORD.auto-converge", b"--auto-converge\n"),
        ("migrate_local", "WORD", b"--auto-converge\n"),
    ],
)
def test_a_migration_converges_as_vmpack_read_it(
    tree: Tree, action: str, answer: str, options: bytes
) -> None:
    """A busy VM would never arrive; and virsh refuses an option that it is given twice."""
    tree.vmpack(f"printf '\\n{answer}'")
    tree.run(action, b"<USER_TEMPLATE><X>MIGRATE_AUTO_CONVERGE</X></USER_TEMPLATE>")
    assert tree.seen("options") == options
    assert tree.asked()[-1][4] == "--token=WORD"


@pytest.mark.parametrize("action", ["resize", "restore", "snapshot_revert", "save"])
def test_a_size_that_was_perhaps_not_noted_is_told(tree: Tree, action: str) -> None:
    """A VM whose vmpack crashed after its resize would stay as small as it was, and nobody know why."""
    tree.vmpack("[ $3 = before ] || exit 1; printf '\\nWORD'")
    said = tree.run(action).stderr.decode()
    assert said.startswith("WARN: ") and ("`vmpack vms --sync`" in said) is (action != "save")


def test_a_killed_wrapper_asks_for_nothing_more(tree: Tree) -> None:
    """What was begun for a killed action must end by itself: see the hold's own tests."""
    os.mkfifo(tree.record / "wait")
    process = subprocess.Popen(
        tree.command("save"), stdin=subprocess.PIPE, env=tree.environment(), start_new_session=True
    )
    assert process.stdin is not None
    process.stdin.close()
    eventually("the stock action runs", (tree.record / "began").exists)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert [asked[2] for asked in tree.asked()] == ["before"]


def test_the_files_have_the_modes_that_oned_needs() -> None:
    """oned refuses an action that is not executable, and copies the whole tree in its stead."""
    modes = {path.name: path.stat().st_mode & 0o111 for path in OURS.iterdir()}
    assert {name for name, mode in modes.items() if not mode} == {path.name for path in OURS.glob("*.sh")}
    assert set(ARGUMENTS) <= set(modes)
