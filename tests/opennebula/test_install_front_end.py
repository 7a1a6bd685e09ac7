"""install.sh opennebula on a double of a front-end: what it puts there, how often, and what it refuses."""

from __future__ import annotations

import getpass
import os
import re
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from tests.opennebula import remotes
from tests.opennebula.front_end import EXECRC, FrontEnd, front_end, program_does


@pytest.fixture
def place(tmp_path: Path) -> FrontEnd:
    """A front-end in ONE_LOCATION, with no host."""
    return front_end(tmp_path)


class TestTree:
    """What stands below the remotes afterwards."""

    def test_every_stock_file_is_linked_and_ours_are_copied(self, place: FrontEnd) -> None:
        """A probe or an action of OpenNebula's would be missing on hosts with vmpack's drivers."""
        code, said = place.install("--no-sync")
        assert code == 0, said
        r = place.remotes
        pairs = [("im/kvm.d", "im/vmpack.d"), ("vmm/kvm", "vmm/vmpack")]
        pairs += [(f"im/kvm-probes.d/{name}", f"im/vmpack-probes.d/{name}") for name in remotes.CATEGORIES]
        pairs += [("etc/im/kvm-probes.d", "etc/im/vmpack-probes.d")]
        for stock, ours in pairs:
            for file in (r / stock).iterdir():
                twin = r / ours / file.name
                if file.name == "linux_host.rb":
                    assert not os.path.lexists(twin)
                elif twin.is_symlink():
                    assert twin.resolve() == file.resolve()
                    assert not twin.readlink().is_absolute()
                else:
                    assert twin.is_file() and (place.machine.checkout / "drivers/opennebula" / ours).exists()
        sources = {"im": "probes/im", "vmpack": "probes/lib", "vmm": "drivers/opennebula/vmm"}
        for folder, source in sources.items():
            top = place.machine.checkout / source
            for file in (path for path in top.rglob("*") if path.is_file()):
                copy = r / folder / file.relative_to(top)
                assert not copy.is_symlink() and copy.read_bytes() == file.read_bytes()

    def test_only_what_openNebula_shall_run_can_be_run(self, place: FrontEnd) -> None:
        """The client would be started twice, or a library run as a probe on every pass."""
        place.install("--no-sync")
        node = remotes.synchronize(place.remotes, place.machine.base / "node")
        runnable = {path.name for path in (node / "im/vmpack.d").iterdir() if os.access(path, os.X_OK)}
        assert runnable == {"monitord-client_control.sh"}
        assert stat.S_IMODE((node / "im/vmpack.d/monitord-client.rb").stat().st_mode) == 0o644
        libraries = [path for path in (node / "vmpack").rglob("*") if path.is_file()]
        assert libraries and not [path for path in libraries if path.stat().st_mode & 0o111]
        for category in remotes.CATEGORIES:
            for probe in (node / "im/vmpack-probes.d" / category).iterdir():
                assert stat.S_IMODE(probe.stat().st_mode) == 0o755, probe

    @pytest.mark.parametrize("copy", ["cp -rL", "rsync -LRaz --delete"])
    def test_a_node_gets_the_whole_of_it(self, place: FrontEnd, copy: str) -> None:
        """The copy to the nodes would fail, and with it the start of every host's monitoring."""
        if shutil.which(copy.split()[0]) is None:
            copy = "cp -rL"
        place.install("--no-sync")
        node = place.machine.base / "node"
        node.mkdir()
        subprocess.run([*copy.split(), ".", str(node)], cwd=place.remotes, check=True, timeout=60)
        assert not [path for path in node.rglob("*") if path.is_symlink()]
        ours = {path.relative_to(place.remotes) for path in place.remotes.rglob("*") if path.is_file()}
        assert ours <= {path.relative_to(node) for path in node.rglob("*")}

    def test_probes_answer_from_the_copy_on_a_node(self, place: FrontEnd) -> None:
        """A host would go into ERROR, because a path that holds on the front-end does not hold there."""
        place.install("--no-sync")
        node = remotes.synchronize(place.remotes, place.machine.base / "node")
        for category in ("host/system", "vm/snapshot"):
            for probe in sorted((node / "im/vmpack-probes.d" / category).glob("vmpack*")):
                done = subprocess.run(
                    [f"../vmpack-probes.d/{category}/{probe.name}", "vmpack", "0", "node"],
                    cwd=node / "im/vmpack.d",
                    env={"PATH": "/bin:/usr/bin", "LANG": "C"},
                    capture_output=True,
                    text=True,
                    timeout=120,
                    check=False,
                )
                assert done.returncode == 0, done.stderr
                if category == "host/system":
                    assert "TOTALMEMORY=" in done.stdout


class TestAgain:
    """Run once more, after an upgrade, after an accident."""

    def test_a_second_run_changes_nothing(self, place: FrontEnd) -> None:
        """Every update of vmpack would touch all files and each host would fetch them anew."""
        place.install("--edit", "--no-sync")
        before = place.tree()
        stamps = {path: path.lstat().st_mtime_ns for path in place.remotes.rglob("*")}
        code, said = place.install("--edit", "--no-sync")
        assert code == 0 and "as they should be" in said
        assert place.tree() == before
        assert {path: path.lstat().st_mtime_ns for path in place.remotes.rglob("*")} == stamps

    def test_after_an_upgrade_new_stock_files_are_linked_and_dead_links_go(self, place: FrontEnd) -> None:
        """A host would lack a new probe, or none would start because of a link that leads nowhere."""
        place.install("--no-sync")
        r = place.remotes
        (r / "im/kvm-probes.d/host/monitor/numa_usage.rb").unlink()
        (r / "im/kvm-probes.d/host/future").mkdir()
        for new in ("im/kvm-probes.d/host/future/new.sh", "vmm/kvm/new_action"):
            (r / new).write_text("#!/bin/sh\n")
            (r / new).chmod(0o755)
        (r / "im/kvm-probes.d/host/monitor/linux_usage.rb.rpmnew").write_text("")
        code, said = place.install("--no-sync")
        assert code == 0, said
        assert not os.path.lexists(r / "im/vmpack-probes.d/host/monitor/numa_usage.rb")
        assert (r / "im/vmpack-probes.d/host/future/new.sh").exists()
        assert (r / "vmm/vmpack/new_action").is_symlink()
        assert not os.path.lexists(r / "im/vmpack-probes.d/host/monitor/linux_usage.rb.rpmnew")

    def test_a_changed_mode_and_a_changed_file_are_mended(self, place: FrontEnd) -> None:
        """A probe that lost its mode would be skipped in silence for ever."""
        place.install("--no-sync")
        before = place.tree()
        probe = place.remotes / "im/vmpack-probes.d/vm/snapshot/vmpack.sh"
        probe.write_text("changed")
        probe.chmod(0o644)
        (place.remotes / "im/vmpack.d/monitord-client.rb").unlink()
        place.install("--no-sync")
        assert place.tree() == before

    def test_a_file_of_somebody_else_is_named_and_kept(self, place: FrontEnd) -> None:
        """An administrator's own probe would vanish, or run unnoticed."""
        place.install("--no-sync")
        own = place.remotes / "im/vmpack-probes.d/host/system/mine.sh"
        own.write_text("#!/bin/sh\n")
        code, said = place.install("--no-sync")
        assert code == 0 and f"left alone, though not ours: {own}" in said
        assert own.exists()


class TestRefusals:
    """Where it stops before anything is changed."""

    @pytest.mark.parametrize("missing", ["im/kvm.d", "vmm/kvm", "VERSION"])
    def test_without_an_opennebula_it_says_so(self, place: FrontEnd, missing: str) -> None:
        """Files would be strewn over a machine that is no front-end."""
        at = place.remotes / missing
        shutil.rmtree(at) if at.is_dir() else at.unlink()
        before = place.tree()
        code, said = place.install()
        assert code == 69 and "no OpenNebula front-end" in said and "--node" in said
        assert place.tree() == before

    def test_the_system_wide_layout_is_looked_for_without_one_location(self, place: FrontEnd) -> None:
        """A packaged OpenNebula would not be found."""
        del place.machine.environment["ONE_LOCATION"]
        code, said = place.install()
        assert code == 69 and "/var/lib/one/remotes" in said

    def test_a_path_with_a_space_is_refused(self, tmp_path: Path) -> None:
        """OpenNebula's unquoted scripts would fail on every host, later and unclearly."""
        code, said = front_end(tmp_path, location="one two").install()
        assert code == 2 and "space" in said

    def test_broken_links_are_refused_before_anything_is_put_there(self, place: FrontEnd) -> None:
        """The copy to the nodes would fail, and every host would go into ERROR at its next start."""
        (place.remotes / "vmm/kvm/dangling").symlink_to("nowhere")
        before = place.tree()
        code, said = place.install()
        assert code == 1 and "dangling" in said
        assert place.tree() == before

    def test_the_remotes_of_another_user_need_root(self, place: FrontEnd) -> None:
        """Half of the files would be written before the first one is denied."""
        place.machine.has("id", 'case "$1" in -un) echo somebody ;; *) echo 1000 ;; esac')
        before = place.tree()
        code, said = place.install()
        assert code == 77 and "belongs to" in said
        assert place.tree() == before

    def test_the_program_for_the_whole_machine_needs_root(self, place: FrontEnd) -> None:
        """A user without rights would see a long list of failed commands."""
        done = place.machine.install("opennebula")
        assert done.returncode == 77 and "--prefix" in done.stderr

    @pytest.mark.parametrize(
        "arguments",
        [
            ("--node", "--edit"),
            ("--type", "xen"),
            ("--type",),
            ("--node", "--context"),
            ("--purge",),
        ],
    )
    def test_options_that_make_no_sense_are_refused(
        self, place: FrontEnd, arguments: tuple[str, ...]
    ) -> None:
        """An option that does nothing would leave a person in the belief that it did."""
        before = place.tree()
        assert place.install(*arguments)[0] == 2
        assert place.tree() == before

    def test_a_dry_run_says_every_step_and_changes_nothing(self, place: FrontEnd) -> None:
        """An administrator who looks first would have changed the cloud by looking."""
        before, files = place.tree(), place.machine.files()
        code, said = place.install("--dry-run", "--edit", "--context")
        assert code == 0, said
        for words in (
            "would: link ",
            "would: copy ",
            "im/vmpack-probes.d/vm/execution",
            "adding vmpack's lines",
            "uploading onegate_init.sh",
            "onehost sync -f",
        ):
            assert words in said
        assert place.tree() == before
        assert place.machine.files() == files
        assert not [call for call in place.machine.calls("onehost") if "sync" in call]


class TestRegistration:
    """OpenNebula's own configuration."""

    def test_without_edit_the_lines_are_shown_and_nothing_is_written(self, place: FrontEnd) -> None:
        """An administrator's configuration would be changed unasked."""
        before = {name: text for name, text in place.tree().items() if name.startswith("etc/")}
        code, said = place.install("--no-sync")
        assert code == 0
        assert f"# to add to {place.etc}/monitord.conf" in said
        assert "one_im_ssh" in said and "one_vmm_exec" in said and "vmpack-qcow2" in said
        assert {name: text for name, text in place.tree().items() if name.startswith("etc/")} == before

    def test_edit_copies_first_and_keeps_owner_and_mode(self, place: FrontEnd) -> None:
        """oned could no longer read its configuration, or everybody could."""
        original = (place.etc / "oned.conf").read_text()
        code, said = place.install("--edit", "--no-sync")
        assert code == 0 and "systemctl restart opennebula" in said
        (kept,) = place.etc.glob("oned.conf.before-vmpack-*")
        assert kept.read_text() == original
        assert stat.S_IMODE((place.etc / "oned.conf").stat().st_mode) == 0o640
        edited = (place.etc / "oned.conf").read_text()
        assert edited.startswith(original) and edited.count('NAME           = "vmpack"') <= 1

    def test_what_the_shell_reads_of_vmm_execrc_holds_both(self, place: FrontEnd) -> None:
        """Live disk snapshots would be refused, for vmpack's driver or for the stock one."""
        place.install("--edit", "--no-sync")
        pairs = subprocess.check_output(
            ["bash", "-c", '. "$1" && echo "$LIVE_DISK_SNAPSHOTS"', "-", place.etc / "vmm_exec/vmm_execrc"],
            text=True,
            timeout=60,
        ).split()
        assert {"kvm-qcow2", "kvm-ssh", "vmpack-qcow2", "vmpack-ssh"} <= set(pairs)

    def test_a_file_without_a_last_newline_stays_whole(self, place: FrontEnd) -> None:
        """The first of our lines would be glued to the last of theirs, and oned would not start."""
        (place.etc / "vmm_exec/vmm_execrc").write_text(EXECRC.rstrip("\n"))
        before = place.tree()
        place.install("--edit", "--no-sync")
        assert EXECRC in (place.etc / "vmm_exec/vmm_execrc").read_text()
        place.run("uninstall")
        assert place.tree() == before

    @pytest.mark.parametrize("comment", ["", "  # ours, since May"])
    def test_drivers_registered_by_hand_are_left_alone(self, place: FrontEnd, comment: str) -> None:
        """oned would refuse to start over two drivers of one name."""
        by_hand = f'IM_MAD = [\n    NAME = "vmpack",{comment}\n    ARGUMENTS = "-t 99 vmpack" ]\n'
        (place.etc / "monitord.conf").write_text(by_hand)
        _, said = place.install("--edit", "--no-sync")
        assert "left as it is" in said
        assert (place.etc / "monitord.conf").read_text() == by_hand

    def test_marks_that_do_not_pair_are_refused(self, place: FrontEnd) -> None:
        """Everything below a lost mark would be cut from the configuration."""
        place.install("--edit", "--no-sync")
        file = place.etc / "oned.conf"
        file.write_text("\n".join(line for line in file.read_text().splitlines() if "<<<" not in line) + "\n")
        before = file.read_text()
        code, said = place.install("--edit", "--no-sync")
        assert code == 78 and "do not pair" in said
        assert place.run("uninstall")[0] == 78
        assert file.read_text() == before

    @pytest.mark.parametrize(
        ("hosts", "arguments", "expected"),
        [
            ([], (), "kvm"),
            ([("a", "qemu", "qemu")], (), "qemu"),
            ([("a", "qemu", "qemu"), ("b", "kvm", "kvm")], (), "kvm"),
            ([("a", "qemu", "qemu")], ("--type", "kvm"), "kvm"),
            ([], ("--type=qemu",), "qemu"),
        ],
    )
    def test_the_type_is_that_of_the_hosts(
        self, place: FrontEnd, hosts: list[tuple[str, str, str]], arguments: tuple[str, ...], expected: str
    ) -> None:
        """VMs would not start: nodes without KVM cannot run domains of type kvm."""
        place.hosts(*hosts)
        for _ in range(2):  # what stands there is not changed by a second run, which names no type
            code, said = place.install("--edit", "--no-sync", *arguments)
            assert code == 0, said
            block = (place.etc / "oned.conf").read_text().partition(">>> vmpack")[2]
            assert [line.split('"')[1] for line in block.splitlines() if line.strip().startswith("TYPE")] == [
                expected
            ]
            arguments = ()


class TestTimer:
    """What runs every minute."""

    def test_it_is_there_and_does_not_run(self, place: FrontEnd) -> None:
        """Memory would be granted before anybody looked at what would be."""
        place.machine.has("systemctl", "exit 0")
        code, said = place.install("--no-sync")
        assert code == 0 and "systemctl enable --now vmpack-grant.timer" in said
        assert not place.machine.calls("systemctl")
        units = place.prefix / "lib/systemd/system"
        service = (units / "vmpack-grant.service").read_text()
        assert "@" not in re.sub("#.*", "", service) and f"User={getpass.getuser()}" in service
        assert "OnCalendar=minutely" in (units / "vmpack-grant.timer").read_text()

    @pytest.mark.parametrize(
        ("granted", "told", "code"), [(0, 0, 0), (1, 0, 1), (0, 3, 3), (3, 69, 69), (78, 0, 78)]
    )
    def test_each_of_its_two_commands_runs(self, place: FrontEnd, granted: int, told: int, code: int) -> None:
        """Owners would hear nothing while a host fails, or failures would look like success."""
        place.install("--no-sync")
        program_does(place, f'case "$1" in grant) exit {granted} ;; vms) exit {told} ;; esac')
        service = (place.prefix / "lib/systemd/system/vmpack-grant.service").read_text()
        (command,) = re.findall("^ExecStart=/bin/sh -c '(.*)'$", service, re.MULTILINE)
        assert subprocess.run(["/bin/sh", "-c", command.replace("$$", "$")], timeout=60).returncode == code
        config = f"--config {place.prefix}/etc/vmpack/vmpack.toml"
        calls = place.machine.calls("vmpack")[-2:]
        assert calls == [f"vmpack grant {config}", f"vmpack vms --sync {config}"]

    def test_enable_turns_it_on(self, place: FrontEnd) -> None:
        """It would have to be known by name."""
        code, said = place.install("--no-sync", "--enable", "--dry-run")
        assert code == 0 and "would: granting every minute" in said
        before = place.tree()
        code, said = place.install("--no-sync", "--enable")
        assert code == 69 and "--enable needs systemd" in said
        assert place.tree() == before


class TestAfterwards:
    """Copying to the hosts."""

    def test_the_hosts_get_the_files_at_the_end(self, place: FrontEnd) -> None:
        """Nodes would go on with the files of the version before: without -f equal versions are skipped."""
        assert place.install()[0] == 0
        assert [call for call in place.machine.calls("onehost") if "sync" in call] == ["onehost sync -f"]

    def test_an_opennebula_that_does_not_run_is_a_warning(self, place: FrontEnd) -> None:
        """An installation before OpenNebula's first start would fail, or the copying be forgotten."""
        (place.one / "onehost-fails").touch()
        code, said = place.install("--edit")
        assert code == 3 and "onehost sync -f" in said
        assert (place.remotes / "vmm/vmpack").is_dir()
