"""install.sh without a network and without root: what it finds, says, changes and leaves alone."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

import pytest
from tests.unit.install_machine import NONE_THERE, ROOT, Machine, debian_machine, fake_environment, pip_calls

from vmpack.errors import AccessError


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """An ordinary user on Debian 12 with all packages, in a checkout whose path has a space."""
    return debian_machine(tmp_path)


class TestWhatItSays:
    """The script teaches, and refuses in one clear line."""

    def test_help_names_every_command_and_option(self, machine: Machine) -> None:
        """A newcomer could not find out what the script can do."""
        said = machine.install("--help").stdout
        for word in (
            "demo",
            "test",
            "dev",
            "agent",
            "uninstall",
            "--dry-run",
            "--prefix",
            "--purge",
            "--keep-packed",
        ):
            assert word in said

    @pytest.mark.parametrize(
        "arguments", [("destroy",), ("agent", "--prefx", "x"), ("agent", "--prefix"), ("dev", "all")]
    )
    def test_a_mistyped_argument_is_refused(self, machine: Machine, arguments: tuple[str, ...]) -> None:
        """A typing mistake would install somewhere the person did not mean."""
        before = machine.files()
        result = machine.install(*arguments)
        assert result.returncode == 2
        assert result.stderr.startswith("vmpack: ")
        assert machine.files() == before

    @pytest.mark.parametrize("command", ["demo", "test", "dev", "agent", "uninstall"])
    def test_a_dry_run_changes_nothing(self, machine: Machine, command: str) -> None:
        """An administrator who looks first would have changed the machine by looking."""
        machine.has("dpkg-query", NONE_THERE)
        machine.has("sudo", "exit 1")
        before = machine.files()
        result = machine.install(command, "--dry-run")
        assert result.returncode == 0, result.stderr
        assert ("would: " in result.stdout) == (command != "uninstall")
        assert machine.files() == before
        assert not machine.calls("sudo")
        assert not machine.calls("apt-get")


class TestPackages:
    """The distribution's packages: installed, or named exactly."""

    def test_nothing_is_asked_of_apt_when_all_is_there(self, machine: Machine) -> None:
        """Every start of the demo would wait for apt, and an ordinary user could not start it at all."""
        fake_environment(machine)
        assert machine.install("dev").returncode == 0
        assert not machine.calls("apt-get")

    def test_missing_packages_are_installed_through_sudo(self, machine: Machine) -> None:
        """A bare machine would stay without QEMU and libvirt, or get far more than is needed."""
        fake_environment(machine)
        machine.has("dpkg-query", 'test "$4" = kmod && echo installed')
        machine.has("sudo", 'exec "$@"')
        assert machine.install("dev").returncode == 0
        (call,) = [call for call in machine.calls("apt-get") if " install " in call]
        assert "--no-install-recommends" in call
        assert {"qemu-system-x86", "python3-venv", "shellcheck"} <= set(call.split())
        assert "kmod" not in call.split()

    def test_stale_lists_are_refreshed_once_and_then_it_says_what_failed(self, machine: Machine) -> None:
        """A machine with old package lists could not be set up; one without a network would not say so."""
        machine.has("dpkg-query", NONE_THERE)
        machine.has("sudo", 'exec "$@"')
        machine.has("apt-get", 'case "$*" in *update*) ;; *) echo "E: 404 Not Found" && exit 100 ;; esac')
        result = machine.install("dev")
        assert result.returncode == 1
        assert len([call for call in machine.calls("apt-get") if " install " in call]) == 2
        assert "404 Not Found" in result.stderr
        log = re.search(r"the whole output is in (\S+)", result.stderr)
        assert log and "404 Not Found" in Path(log.group(1)).read_text()

    def test_without_root_and_sudo_the_administrators_command_is_named(self, machine: Machine) -> None:
        """A user without rights would be left guessing what to ask for."""
        machine.has("dpkg-query", NONE_THERE)
        result = machine.install("demo")
        assert result.returncode == AccessError.exit_code
        assert (
            "apt-get install --no-install-recommends python3-venv python3-libvirt qemu-system-x86"
            in result.stderr
        )

    @pytest.mark.parametrize(
        ("os_release", "expected"),
        [
            ('ID="almalinux"\nID_LIKE="rhel centos fedora"\nVERSION_ID="9.5"\n', "python3.12"),
            ('ID="almalinux"\nID_LIKE="rhel centos fedora"\nVERSION_ID="9.5"\n', "dnf install epel-release"),
            ('ID="rhel"\nVERSION_ID="10.0"\n', "dnf install python3 python3-libvirt qemu-kvm-core"),
            ('ID="rhel"\nVERSION_ID="10.0"\n', "epel-release-latest-10.noarch.rpm"),
            ("ID=fedora\nVERSION_ID=44\n", "as root: dnf install python3 "),
            ("ID=arch\n", "pacman -S"),
            ('ID=opensuse-leap\nID_LIKE="suse opensuse"\n', "zypper install"),
        ],
    )
    def test_elsewhere_the_exact_command_is_printed(
        self, machine: Machine, os_release: str, expected: str
    ) -> None:
        """People on other distributions would have to search for the names of packages."""
        machine.is_running(os_release)
        result = machine.install("demo")
        assert result.returncode == 69
        assert expected in result.stderr
        assert "busybox" in result.stderr
        assert not machine.calls("apt-get")

    @pytest.mark.parametrize("os_release", ["ID=debian\nVERSION_ID=11\n", "ID=ubuntu\nVERSION_ID=22.04\n"])
    def test_a_too_old_release_is_refused_before_anything_is_installed(
        self, machine: Machine, os_release: str
    ) -> None:
        """Packages would be put on a machine where vmpack can never run."""
        machine.is_running(os_release)
        machine.has("dpkg-query", NONE_THERE)
        assert machine.install("demo").returncode == 69
        assert not machine.calls("apt-get")


class TestEnvironment:
    """./.venv is made once and made again when it must."""

    def test_the_second_run_does_nothing(self, machine: Machine) -> None:
        """Every demo would wait for pip."""
        fake_environment(machine)
        assert machine.install("dev").returncode == 0
        assert machine.install("dev").returncode == 0
        assert len(pip_calls(machine)) == 1

    def test_new_requirements_are_installed(self, machine: Machine) -> None:
        """After an update of the checkout the demo would fail on a missing package."""
        fake_environment(machine)
        machine.install("dev")
        with (machine.checkout / "setup.cfg").open("a") as file:
            file.write("\n# changed\n")
        machine.install("dev")
        assert len(pip_calls(machine)) == 2

    def test_an_installation_that_was_cut_short_is_done_again(self, machine: Machine) -> None:
        """A failed download would leave a half-filled environment that counts as complete."""
        fake_environment(machine, 'case "$*" in *" install "*) echo "no index" && exit 1 ;; esac')
        result = machine.install("dev")
        assert result.returncode == 1
        assert "no index" in result.stderr
        machine.has("venv-python", "exit 0")
        assert machine.install("dev").returncode == 0
        assert len(pip_calls(machine)) == 2

    def test_a_moved_checkout_gets_a_new_environment(self, machine: Machine) -> None:
        """Programs in .venv name their Python by path: after a move they would not start."""
        fake_environment(machine)
        machine.install("dev")
        machine.checkout = machine.checkout.rename(machine.base / "moved")
        assert "making a Python environment" in machine.install("dev", "--dry-run").stdout

    def test_the_demo_needs_no_test_tools(self, machine: Machine) -> None:
        """A newcomer would wait for linters before seeing anything."""
        fake_environment(machine)
        machine.has("demo", "exit 7")
        (machine.checkout / ".venv/bin/vmpack").symlink_to(machine.base / "bin/demo")
        result = machine.install("demo", "--guests", "2", "--json", "with space.json")
        assert result.returncode == 7
        assert machine.calls("demo") == ["demo demo --guests 2 --json with space.json"]
        assert "[test]" not in pip_calls(machine)[0]


def test_the_extras_are_there_by_name() -> None:
    """`pip install vmpack[openstack]` would silently install nothing more."""
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    assert set(parser["options.extras_require"]) == {
        "opennebula",
        "openstack",
        "gpu",
        "gui",
        "replay",
        "solver",
        "test",
    }
