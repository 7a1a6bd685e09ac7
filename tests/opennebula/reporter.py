"""The reporter in a guest that is only a folder, run by a real shell, in time that the test lets pass.

Used by test_onegate_*.py. /proc/uptime is a file and `sleep` moves it on, so hours pass in seconds; it stands
still at the hour that the test has allowed. Requests are real, to a double of OneGate.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

from tests.waiting import eventually
from vmpack.lab.image import build_image

SCRIPTS = Path(__file__).parents[2] / "onegate_scripts"
PUBLISHER = SCRIPTS / "onegate_publisher.sh"
INIT = SCRIPTS / "onegate_init.sh"
SHELLS = ("dash", "busybox", "bash")

MEMINFO = """\
MemTotal:        {total:>8} kB
MemFree:         {free:>8} kB
MemAvailable:    {available:>8} kB
Buffers:             104 kB
SwapTotal:       {swap_total:>8} kB
SwapFree:        {swap_free:>8} kB
Dirty:                 0 kB
"""
PRESSURE = """\
some avg10=12.34 avg60=0.56 avg300=0.10 total=987654321
full avg10=0.09 avg60=0.00 avg300=0.00 total=1234
"""
VMSTAT = "nr_free_pages 1\npgfault 123456\npgmajfault 789\ndrop_slab 0\noom_kill 2\nballoon_inflate 0\n"

_SLEEP = """\
#!/bin/sh
folder={folder}
read -r now rest < "$folder/uptime"
end=$((${{now%.*}} + $1))
read -r limit < "$folder/limit"
while [ "$end" -gt "$limit" ]; do
    kill -0 $PPID || exit
    echo "$end" > "$folder/asleep"
    {sleep} 0.02
    kill -0 "$PPID" || exit
    read -r limit < "$folder/limit"
done
echo "$end.${{now#*.}} $rest" > "$folder/uptime"
"""


def shell_command(name: str) -> list[str]:
    """How to run scripts with this shell. busybox comes out of the lab's guest where it is not installed."""
    if name != "busybox":
        return [str(shutil.which(name))]
    return [shutil.which("busybox") or str(_lab_busybox()), "sh"]


def _lab_busybox() -> Path:
    image = build_image()
    place = Path(tempfile.gettempdir()) / f"vmpack-busybox-{os.geteuid()}-{image.key}"
    if not (place / "bin/busybox").is_file():
        place.mkdir(mode=0o700, exist_ok=True)
        with image.initramfs.open("rb") as archive:
            subprocess.run(["cpio", "--quiet", "-id", "bin/busybox"], stdin=archive, cwd=place, check=True)
    return place / "bin/busybox"


class GuestRoot:
    """A folder with /proc and the context of a guest, and one reporter in it. The clock starts at 1000 s."""

    def __init__(self, folder: Path, shell: str = "dash") -> None:
        self.root = folder / "guest root"
        self.proc = self.root / "proc"
        self.run = self.root / "run/vmpack"
        self.context = self.root / "var/run/one-context/one_env"
        self.applied = self.run / "applied"
        self.process: subprocess.Popen[str] | None = None
        self._shell = shell_command(shell)
        self._time = folder / "time"
        for made in (self.proc / "pressure", self.context.parent, self._time):
            made.mkdir(parents=True)
        (self.proc / "uptime").symlink_to(self._time / "uptime")
        (self._time / "uptime").write_text("1000.25 3000.00\n")
        self.allow(0)
        sleep = self._time / "sleep"
        sleep.write_text(_SLEEP.format(folder=self._time, sleep=shutil.which("sleep")))
        sleep.chmod(0o755)
        self.set_memory()
        (self.proc / "vmstat").write_text(VMSTAT)
        (self.proc / "pressure/memory").write_text(PRESSURE)

    def set_memory(
        self, available: int = 600_000, free: int = 500_000, total: int = 1_000_000, swap: int = 5_000
    ) -> None:
        """What the guest's kernel says from now on, in KiB."""
        text = MEMINFO.format(total=total, free=free, available=available, swap_total=10_000, swap_free=swap)
        new = self.proc / "meminfo.new"
        new.write_text(text)
        new.rename(self.proc / "meminfo")

    def set_context(self, endpoint: str, token: str = "dG9rZW4+/w==", vm: int = 7, **names: str) -> None:
        """Write one_env as the guest's context package does, its owner's script included."""
        context = {"START_SCRIPT": 'echo hello\nexport TOKENTXT="not this one"', **names}
        lines = [("TOKENTXT", token), ("VMID", str(vm)), ("ONEGATE_ENDPOINT", endpoint), *context.items()]
        text = "".join(f'export {name}="{value}"\n' for name, value in lines)
        self.context.unlink(missing_ok=True)
        self.context.write_text(text)
        self.context.chmod(0o400)

    def start(self) -> None:
        """Start the reporter, and wait until it sleeps for the first time."""
        script = f'sleep() {{ exec "{self._time}/sleep" "$@"; }}; . "$0"'
        self.process = subprocess.Popen(
            [*self._shell, "-c", script, str(PUBLISHER), "--root", str(self.root)],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._wait()

    def now_s(self) -> float:
        """The guest's clock: seconds since its boot."""
        while not (text := (self._time / "uptime").read_text()):
            pass  # it is being written
        return float(text.split()[0])

    def pass_time(self, seconds: int) -> None:
        """Let time go on; returns when the reporter sleeps beyond it."""
        self.allow(seconds)
        self._wait()

    def status(self) -> str:
        """The line that the reporter shows."""
        return (self.run / "reporter.status").read_text().strip()

    def stop(self) -> str:
        """End the reporter as a service manager does; returns what it has said."""
        process = self.process
        assert process is not None
        self.process = None
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 0, said
        return said

    def files(self) -> set[str]:
        """Every file and folder below the root but for what the test itself put there."""
        return {
            str(path.relative_to(self.root))
            for path in self.root.rglob("*")
            if path not in (self.proc, self.context) and self.proc not in path.parents
        } - {"var", "var/run", "var/run/one-context", "run"}

    def allow(self, seconds: int) -> None:
        """Let so much time go on, and do not wait for it."""
        self._limit_s = int(self.now_s()) + seconds
        new = self._time / "limit.new"
        new.write_text(f"{self._limit_s}\n")
        new.rename(self._time / "limit")

    def _is_asleep(self) -> bool:
        process = self.process
        assert process is not None
        if process.poll() is not None:
            said = process.stderr.read() if process.stderr else ""
            raise AssertionError(f"the reporter ended with {process.returncode}: {said}")
        with suppress(FileNotFoundError, ValueError):  # not asleep yet, or it is being written
            return int((self._time / "asleep").read_text()) > self._limit_s
        return False

    def _wait(self) -> None:
        eventually("the reporter sleeps", self._is_asleep)
