"""install.sh agent and uninstall: what goes below a prefix, what goes away again, and the systemd units."""

from __future__ import annotations

import configparser
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from tests.unit.install_machine import ROOT, Machine, debian_machine, installed_release

from vmpack.errors import AccessError, ConfigError, UsageError


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """An ordinary user on Debian 12 with all packages, in a checkout whose path has a space."""
    return debian_machine(tmp_path)


class TestAgent:
    """The installation of the agent below a prefix, and its removal."""

    def test_what_is_installed_goes_away_and_the_rest_stays(self, machine: Machine) -> None:
        """Removing vmpack would leave litter on the host, or take an administrator's files with it."""
        prefix = machine.base / "prefix"
        installed_release(machine, str(prefix), 'test "$1" != check-config || echo "[memory]"')
        (prefix / "bin").mkdir()
        (prefix / "bin/other").touch()
        assert machine.install("agent", "--prefix", str(prefix)).returncode == 0
        assert (prefix / "bin/memory_coordinator").is_symlink()
        assert (prefix / "etc/vmpack/vmpack.toml").read_text() == "[memory]\n"
        removed = machine.install("uninstall", "--prefix", str(prefix))
        assert removed.returncode == 0
        # a state folder that was never made is not said to be kept
        assert f"kept: {prefix}/etc/vmpack (--purge" in removed.stderr
        left = {path.relative_to(prefix) for path in prefix.rglob("*") if not path.is_dir()}
        assert left == {Path("bin/other"), Path("etc/vmpack/vmpack.toml")}
        assert machine.install("uninstall", "--prefix", str(prefix), "--purge").returncode == 0
        assert not (prefix / "etc/vmpack").exists()

    def test_a_configuration_is_never_overwritten(self, machine: Machine) -> None:
        """An update would silently undo an administrator's settings."""
        prefix = machine.base / "prefix"
        installed_release(machine, str(prefix))
        config = prefix / "etc/vmpack/vmpack.toml"
        config.parent.mkdir(parents=True)
        config.write_text("mine")
        assert machine.install("agent", "--prefix", str(prefix)).returncode == 0
        assert config.read_text() == "mine"

    def test_an_update_keeps_the_release_before_it(self, machine: Machine) -> None:
        """A running agent would lose the files it runs from."""
        prefix = machine.base / "prefix"
        releases = []
        for version in ("1", "2", "3"):
            (machine.checkout / "agent/vmpack/version.py").write_text(version)
            releases.append(installed_release(machine, str(prefix)))
            assert machine.install("agent", "--prefix", str(prefix)).returncode == 0
            assert (prefix / "lib/vmpack/current").resolve() == releases[-1].resolve()
        assert {path.name for path in (prefix / "lib/vmpack/releases").iterdir()} == {
            r.name for r in releases[1:]
        }

    def test_a_program_of_somebody_else_is_not_replaced(self, machine: Machine) -> None:
        """Another package's `vmpack` would be overwritten."""
        prefix = machine.base / "prefix"
        installed_release(machine, str(prefix))
        (prefix / "bin").mkdir()
        (prefix / "bin/vmpack").write_text("theirs")
        assert machine.install("agent", "--prefix", str(prefix)).returncode == 1
        assert (prefix / "bin/vmpack").read_text() == "theirs"

    @pytest.mark.parametrize(
        ("behaviour", "extra", "code"),
        [
            ("test $1 != status || exit 69", (), 0),
            ("test $1 = check-config || exit 69", (), 1),
            ("test $1 = check-config || exit 69", ("--keep-packed",), 0),
            ("exit 0", (), 75),
        ],
        ids=["given back", "cannot give back", "cannot, but must go", "an agent runs"],
    )
    def test_memory_is_given_back_before_anything_is_removed(
        self, machine: Machine, behaviour: str, extra: tuple[str, ...], code: int
    ) -> None:
        """Guests would stay squeezed with no program left on the host that could help them."""
        prefix = machine.base / "prefix"
        release = installed_release(machine, str(prefix), behaviour)
        machine.install("agent", "--prefix", str(prefix))
        (machine.base / "home/.local/state/vmpack").mkdir(parents=True)
        result = machine.install("uninstall", "--prefix", str(prefix), *extra)
        assert result.returncode == code, result.stderr
        assert release.exists() == (code != 0)
        assert (prefix / "bin/vmpack").exists() == (code != 0)
        config = f"--config {prefix}/etc/vmpack/vmpack.toml"
        calls = machine.calls("vmpack")
        assert f"vmpack status {config}" in calls
        assert (f"vmpack release --all {config}" in calls) == (code != 75)
        assert (f"vmpack freeze --off {config}" in calls) == (code == 0)

    def test_memory_is_given_back_though_the_configuration_is_gone(self, machine: Machine) -> None:
        """uninstall would refuse for ever where somebody has removed the configuration first."""
        prefix = machine.base / "prefix"
        installed_release(machine, str(prefix), "test $1 != status || exit 69")
        machine.install("agent", "--prefix", str(prefix))
        (machine.base / "home/.local/state/vmpack").mkdir(parents=True)
        (prefix / "etc/vmpack/vmpack.toml").unlink()
        assert machine.install("uninstall", "--prefix", str(prefix)).returncode == 0
        assert "vmpack release --all" in machine.calls("vmpack")

    def test_the_whole_host_needs_root(self, machine: Machine) -> None:
        """A user without rights would see a long list of failed commands."""
        result = machine.install("agent")
        assert result.returncode == AccessError.exit_code
        assert "--prefix" in result.stderr


class TestUnits:
    """The systemd units, as they are written."""

    @pytest.fixture
    def units(self, machine: Machine) -> dict[str, configparser.ConfigParser]:
        """Both units, installed below a prefix."""
        prefix = machine.base / "prefix"
        installed_release(machine, str(prefix))
        machine.install("agent", "--prefix", str(prefix))
        units = {}
        for path in (prefix / "lib/systemd/system").iterdir():
            parser = configparser.ConfigParser(interpolation=None, strict=False)
            parser.optionxform = str  # type: ignore[assignment,method-assign]
            parser.read_string(path.read_text())
            assert not re.search(r"@[A-Z]+@", path.read_text())
            units[path.name] = parser
        return units

    def test_they_start_what_was_installed(
        self, units: dict[str, configparser.ConfigParser], machine: Machine
    ) -> None:
        """The service would fail at its first start."""
        program = str(machine.base / "prefix/bin/vmpack")
        config = f"--config {machine.base}/prefix/etc/vmpack/vmpack.toml"
        agent, release = (units[f"vmpack-{name}.service"]["Service"] for name in ("agent", "release"))
        assert agent["ExecStart"] == f"{program} agent {config}"
        assert agent["Type"] == "notify"
        assert release["ExecStart"] == f"{program} release --all {config}"
        assert f"'{program} status {config} >" in release["ExecCondition"]

    @pytest.mark.parametrize(("code", "goes_on"), [(0, False), (3, False), (69, True), (78, True)])
    def test_the_release_stands_back_for_a_living_agent_only(
        self, units: dict[str, configparser.ConfigParser], machine: Machine, code: int, goes_on: bool
    ) -> None:
        """Memory would be taken from a living agent, or a wrong configuration would skip it unsaid."""
        program = machine.base / "prefix/bin/vmpack"
        program.unlink()
        program.write_text(f"#!/bin/sh\nexit {code}\n")
        program.chmod(0o755)
        condition = units["vmpack-release.service"]["Service"]["ExecCondition"].replace("$$", "$")
        done = subprocess.run(shlex.split(condition), env=machine.environment, check=False)
        assert (done.returncode == 0) == goes_on

    def test_an_agent_that_dies_for_good_is_followed_by_a_release(
        self, units: dict[str, configparser.ConfigParser]
    ) -> None:
        """Guests would stay squeezed with nobody to look after them."""
        agent = units["vmpack-agent.service"]
        assert agent["Unit"]["OnFailure"] in units
        assert agent["Service"]["Restart"] == "on-failure"
        assert int(agent["Unit"]["StartLimitBurst"]) * int(agent["Service"]["RestartSec"]) < int(
            agent["Unit"]["StartLimitIntervalSec"]
        )

    def test_what_trying_again_cannot_cure_is_not_tried_again(
        self, units: dict[str, configparser.ConfigParser]
    ) -> None:
        """A wrong configuration would be tried for ever, or a slow libvirt would end the agent for good."""
        codes = {
            int(code) for code in units["vmpack-agent.service"]["Service"]["RestartPreventExitStatus"].split()
        }
        assert codes == {error.exit_code for error in (UsageError, AccessError, ConfigError)}


@pytest.mark.long
def test_a_real_installation_runs_and_goes_away(tmp_path: Path) -> None:
    """The program that pip makes below a prefix would not start, or not go away again."""
    environment = {
        **os.environ,
        "TMPDIR": str(tmp_path),
        "HOME": str(tmp_path),
        "XDG_STATE_HOME": str(tmp_path / "none"),
    }
    script = str(ROOT / "install.sh")
    prefix = tmp_path / "prefix"
    subprocess.run([script, "agent", "--prefix", str(prefix)], env=environment, check=True, timeout=600)
    assert "memory_coordinator" in subprocess.check_output(
        [prefix / "bin/memory_coordinator", "--help"], text=True
    )
    subprocess.run(
        [script, "uninstall", "--prefix", str(prefix), "--keep-packed"],
        env=environment,
        check=True,
        timeout=600,
    )
    assert [path for path in prefix.rglob("*") if not path.is_dir()] == [prefix / "etc/vmpack/vmpack.toml"]


@pytest.mark.parametrize(
    ("extras", "with_driver"),
    [("", "gpu"), ("opennebula", "opennebula,gpu"), ("opennebula,gpu", "opennebula,gpu")],
)
def test_where_nvidias_driver_is_gpus_can_be_read(extras: str, with_driver: str, tmp_path: Path) -> None:
    """Nobody would guess that a host with GPUs needs one more Python package; other hosts do not get it."""
    script = '. "$0"; nvidia_driver=$1 extras=$2; add_gpu_extra; printf %s "$extras"'
    for driver, expected in ((tmp_path, with_driver), (tmp_path / "absent", extras)):
        words = ["sh", "-eu", "-c", script, ROOT / "agent/install/program.sh", driver, extras]
        assert subprocess.run(words, check=True, capture_output=True, text=True).stdout == expected
