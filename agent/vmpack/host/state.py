"""What the agent keeps in its state directory: what decisions remember, the frozen flag, the host's claims.

Used by the agent, and by `vmpack freeze` and `vmpack release` when the agent is dead. Files are versioned and
replaced in one step; a broken one is set aside with a warning and never stops the agent.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from vmpack.errors import BadDataError, VmpackError
from vmpack.host.directory import own_directory
from vmpack.model.codec import dumps, loads
from vmpack.model.host import Claim
from vmpack.model.plan import Remembered
from vmpack.publish.atomic import disk_error, set_aside, sweep_leftovers, write_atomically

log = logging.getLogger(__name__)

FORMAT = 1
BOOT_ID_PATH = Path("/proc/sys/kernel/random/boot_id")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RememberedFile:
    """The form of remembered.json. Its times are of the monotonic clock, so they end with the boot."""

    format: int
    boot_id: str
    remembered: Remembered


@dataclass(frozen=True, slots=True)
class ClaimsFile:
    """The form of claims.json."""

    format: int
    claims: tuple[Claim, ...]


class State:
    """The state directory of one agent."""

    def __init__(self, directory: Path, boot_id: str | None = None) -> None:
        self._remembered_path = directory / "remembered.json"
        self._frozen_path = directory / "frozen"
        self._claims_path = directory / "claims.json"
        self._directory = directory
        self._frozen_here = False
        self._is_swept = False
        self._faults: dict[Path, str] = {}
        self._boot_id = BOOT_ID_PATH.read_text(encoding="ascii").strip() if boot_id is None else boot_id

    def prepare(self) -> None:
        """Create the directory and its journal's.

        Raises VmpackError with a hint when that is not possible, or when somebody else could write there.
        """
        own_directory(self._directory, 0o750)
        own_directory(self._directory / "journal", 0o750)

    def remembered(self) -> Remembered:
        """What the last agent of this boot remembered; nothing when there is none or the file is broken."""
        kept = self._read(RememberedFile, self._remembered_path)
        if kept is None:
            return Remembered()
        if kept.boot_id != self._boot_id:
            log.info("the host was rebooted: what was remembered of its VMs is forgotten")
            return Remembered()
        return kept.remembered

    def save(self, remembered: Remembered) -> None:
        """Keep what decisions remember; for the lock's holder only. Raises VmpackError: the disk fails."""
        if not self._is_swept:
            self._is_swept = True
            sweep_leftovers(self._remembered_path)
        text = dumps(RememberedFile(FORMAT, self._boot_id, remembered))
        write_atomically(self._remembered_path, text + "\n", mode=0o640)

    def frozen(self) -> bool:
        """Has the administrator stopped all changes?"""
        return self._frozen_here or self._frozen_path.exists()

    def freeze(self, on: bool) -> None:
        """Stop all changes, or allow them again; survives restarts and reboots.

        Raises VmpackError when the disk fails; a freeze then holds for as long as this process lives.
        """
        self._frozen_here = on
        if on:
            self.prepare()
            since = time.strftime("%Y-%m-%dT%H:%M:%S%z")
            write_atomically(self._frozen_path, f"since {since}; vmpack freeze --off ends it\n", durable=True)
            return
        try:
            self._frozen_path.unlink(missing_ok=True)
        except OSError as error:
            raise disk_error("remove", self._frozen_path, error) from error

    def claims(self) -> tuple[Claim, ...]:
        """The uses of the host's room that are not running VMs."""
        kept = self._read(ClaimsFile, self._claims_path)
        return kept.claims if kept else ()

    def save_claims(self, claims: tuple[Claim, ...]) -> None:
        """Replace the claims. Raises VmpackError when the disk fails."""
        write_atomically(self._claims_path, dumps(ClaimsFile(FORMAT, claims)) + "\n", mode=0o640)

    def _read(self, cls: type[T], path: Path) -> T | None:
        try:
            kept = loads(cls, path.read_bytes())
            if getattr(kept, "format", None) != FORMAT:
                raise BadDataError(f"format {getattr(kept, 'format', None)} is not {FORMAT}")
        except FileNotFoundError:
            self._faults.pop(path, None)
            return None
        except OSError as error:
            self._say_once(path, f"{disk_error('read', path, error)}; going on without it")
            return None
        except BadDataError as error:
            self._put_away(path, error)
            return None
        self._faults.pop(path, None)
        return kept

    def _put_away(self, path: Path, error: BadDataError) -> None:
        try:
            log.warning("%s is broken (%s): set aside as %s", path, error.message, set_aside(path).name)
        except VmpackError as failure:
            self._say_once(path, f"{path} is broken ({error.message}) and could not be set aside: {failure}")

    def _say_once(self, path: Path, fault: str) -> None:
        """Claims are read in every interval."""
        if self._faults.get(path) != fault:
            log.warning("%s", fault)
        self._faults[path] = fault
