"""libvirt's QEMU driver inside this process: no daemon, one process only.

Called by `Lab.embedded`. QEMUs outlive the process, so a program that uses this runs below `supervise`.
"""

import os
from urllib.parse import quote

from vmpack.event_loop import start_event_loop
from vmpack.lab.image import image_cache
from vmpack.lab.state import StateFolder

QEMU_CONF = """\
stdio_handler = "file"
security_driver = "none"
dynamic_ownership = 0
remember_owner = 0
namespaces = [ ]
cgroup_controllers = [ ]
seccomp_sandbox = 0
"""
QEMU_CONF_AS_ROOT = QEMU_CONF + 'user = "root"\ngroup = "root"\n'


class EmbeddedLibvirt:
    """The driver's folder and address; the driver itself lives as long as a connection to `uri` is open."""

    def __init__(self, state: StateFolder, as_root: bool) -> None:
        """As root on Debian only a program below `supervise` can open `uri`."""
        (state.etc / "qemu.conf").write_text(QEMU_CONF_AS_ROOT if as_root else QEMU_CONF)
        if not as_root:
            _use_own_home(state)
        self.uri = f"qemu:///embed?root={quote(str(state.root))}"
        self.pid_folder = state.root / "run/qemu"
        self.files = state.files
        self._lock = state.take_lock()
        start_event_loop()

    def stop(self) -> None:
        """Give up the folder; nothing runs beside this process."""
        os.close(self._lock)


def _use_own_home(state: StateFolder) -> None:
    """Give libvirt, which goes by this process's environment, a home that exists and is ours."""
    os.environ["VMPACK_CACHE_DIR"] = str(image_cache())  # before it would move with the home
    os.environ.update(home_environment(state))


def home_environment(state: StateFolder) -> dict[str, str]:
    """What makes libvirt keep an ordinary user's files in the lab's folder."""
    (state.root / "run").mkdir(mode=0o700, exist_ok=True)
    return {
        "HOME": str(state.root),
        "XDG_CONFIG_HOME": str(state.etc),
        "XDG_CACHE_HOME": str(state.root / "cache"),
        "XDG_DATA_HOME": str(state.root / "lib"),
        "XDG_RUNTIME_DIR": str(state.root / "run"),
    }
