"""The folder that one lab keeps everything in: configuration, sockets, consoles, logs.

Called by every other file of the lab. Promises that the folder belongs to the caller and nobody else may
enter, and that socket paths in it stay below the 108 bytes that a unix socket may have.
"""

import fcntl
import os
import re
import shutil
import stat
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from vmpack.errors import AccessError, UsageError

FILES_FOLDER = "lab"
"""Name of the folder with the guests' sockets and consoles, below libvirt's own in /run."""

# no lab's name has a dot
_PAIR_SUFFIX = ".pair"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,11}\Z")
# libvirt puts up to 60 bytes behind a lab's folder for its own sockets
_LONGEST_BASE_BYTES = 30
# Between making a folder and locking it passes less than this.
_UNLOCKED_S = 600.0


@dataclass(frozen=True, slots=True)
class GuestFiles:
    """Where the guests' sockets and consoles are: the lab's programs and its libvirt may see another root."""

    root: Path

    def console(self, guest: str) -> Path:
        """What the guest's kernel and init print."""
        return self.root / "con" / guest

    def control_socket(self, guest: str) -> Path:
        """The lab's control channel of a guest."""
        return self.root / "ctl" / guest

    def agent_socket(self, guest: str) -> Path:
        """The guest agent's channel."""
        return self.root / "ga" / guest


@dataclass(frozen=True, slots=True)
class StateFolder:
    """Paths inside one lab's folder; `pair` is the folder of the pair that the lab is one host of."""

    root: Path
    pair: Path | None = None

    @property
    def mark(self) -> str:
        """A word on the guests' kernel command lines, and so on their QEMUs', that tells whose they are.

        The hosts of a pair have one mark: a guest carries it from one to the other.
        """
        return f"vmpack.lab={self.pair or self.root}"

    @property
    def files(self) -> GuestFiles:
        """Sockets and consoles, below the folder that a private libvirt sees as /run/libvirt."""
        return GuestFiles(self.root / "run" / FILES_FOLDER)

    @property
    def etc(self) -> Path:
        """Configuration of libvirt."""
        return self.root / "etc"

    @property
    def lock(self) -> Path:
        """Held by the lab's reaper, or by the program that embeds it; holds that one's process id."""
        return self.root / "lock"

    def take_lock(self) -> int:
        """Lock the lab as long as the returned file descriptor is open. Raises BlockingIOError."""
        lock = os.open(self.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise
        return lock

    def is_locked(self) -> bool:
        """True while somebody runs this lab."""
        try:
            with self.lock.open() as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except FileNotFoundError:
            pass
        return False

    def prepare(self) -> None:
        """Make the folder and those inside, for the owner only. Raises AccessError when it is not ours.

        The hosts of a pair have their consoles together: what a guest printed goes with it.
        """
        make_own(self.root.parent)
        make_own(self.root)
        for folder in (self.etc, self.root / "run", self.files.root):
            folder.mkdir(mode=0o700, exist_ok=True)
        for name in ("con", "ctl", "ga"):
            folder = self.files.root / name
            if name == "con" and self.pair is not None:
                (self.pair / name).mkdir(mode=0o700, exist_ok=True)
                folder.symlink_to(self.pair / name)
            else:
                folder.mkdir(mode=0o700, exist_ok=True)

    def remove(self) -> None:
        """Delete the folder and all inside; nothing is left to see of the lab."""
        shutil.rmtree(self.root, ignore_errors=True)


def base_folder() -> Path:
    """Where labs of this user live: /run for root, the user's runtime folder, else a private one in /tmp."""
    if os.geteuid() == 0:
        return Path("/run/vmpack-lab")
    runtime = Path(os.environ.get("XDG_RUNTIME_DIR", "")) / "vmpack-lab"
    if (
        runtime.is_absolute()
        and os.access(runtime.parent, os.W_OK)
        and len(str(runtime)) <= _LONGEST_BASE_BYTES
    ):
        return runtime
    return Path(f"/tmp/vmpack-lab-{os.geteuid()}")


def named_state(name: str) -> StateFolder:
    """The folder of the lab with this name, made or not.

    Raises UsageError for names that do not fit, AccessError where the place for labs is not ours.
    """
    if not _NAME.match(name):
        raise UsageError(f"{name!r} is no name for a lab", "use up to 12 letters, digits, - and _")
    base = base_folder()
    make_own(base)
    return StateFolder(base / name)


def named_pair(name: str) -> Path:
    """The folder of the pair of labs with this name, made or not. Raises what `named_state` raises."""
    return named_state(name).root.with_suffix(_PAIR_SUFFIX)


def temporary_state() -> StateFolder:
    """A new folder for a lab that ends with its program. Raises AccessError."""
    state = StateFolder(_temporary_folder(""))
    state.prepare()
    return state


def temporary_pair() -> Path:
    """A new folder for a pair of labs that ends with its program. Raises AccessError."""
    return _temporary_folder(_PAIR_SUFFIX)


def pair_hosts(folder: Path) -> tuple[StateFolder, StateFolder]:
    """The two labs of a pair, which lie in its folder."""
    return StateFolder(folder / "a", folder), StateFolder(folder / "b", folder)


def _temporary_folder(suffix: str) -> Path:
    base = base_folder()
    make_own(base)
    _sweep(base)
    return Path(tempfile.mkdtemp(prefix="t-", suffix=suffix, dir=base))


def _sweep(base: Path) -> None:
    """Delete what killed programs left; their guests and daemons have ended with them."""
    for folder in base.glob("t-*"):
        try:
            age_s = time.time() - folder.stat().st_mtime
        except FileNotFoundError:
            continue  # its program ends now
        labs = (StateFolder(folder), *pair_hosts(folder))
        if age_s > _UNLOCKED_S and not any(lab.is_locked() for lab in labs):
            shutil.rmtree(folder, ignore_errors=True)


def make_own(folder: Path) -> None:
    """Make a folder for us alone, or make sure that an existing one is: /tmp is open to everybody.

    Raises AccessError.
    """
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
    except OSError as error:
        raise AccessError(f"cannot make {folder}: {error.strerror}", "check its owner and mode") from error
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise AccessError(f"{folder} is not a private folder of this user", "remove it, or ask who made it")
