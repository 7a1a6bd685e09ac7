"""Where oned answers and as whom vmpack asks it. Called by the commands.

Promises: the secret is in no message, and is read from no file that others may read or write.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from vmpack.config import OpenNebulaAccess
from vmpack.config_keys import home_directory
from vmpack.errors import AccessError, ConfigError, UnavailableError

DEFAULT_ENDPOINT = "http://localhost:2633/RPC2"
_LARGEST_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Login:
    """An endpoint and the session string for it."""

    endpoint: str
    session: str = field(repr=False)


def login(access: OpenNebulaAccess, environment: Mapping[str, str] | None = None) -> Login:
    """What the configuration says, else ONE_XMLRPC and ONE_AUTH, else this user's files, as OpenNebula's CLI.

    Raises ConfigError, UnavailableError without credentials, AccessError when their file is not this user's.
    """
    given = os.environ if environment is None else environment
    home = home_directory()
    own = None if home is None else home / ".one"
    endpoint = access.endpoint or given.get("ONE_XMLRPC") or _endpoint_file(own) or DEFAULT_ENDPOINT
    named = access.auth_file or (Path(given["ONE_AUTH"]) if given.get("ONE_AUTH") else None)
    file = named or (None if own is None else own / "one_auth")
    if file is None:
        raise _no_credentials("this user has no home, so no ~/.one/one_auth")
    return Login(_checked_endpoint(endpoint), _session(file))


def _checked_endpoint(endpoint: str) -> str:
    try:
        parts = urlsplit(endpoint.strip())
        sound = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        sound = False
    if not sound:
        raise ConfigError(
            f"{endpoint!r:.80} is no address of oned", f"write for example {DEFAULT_ENDPOINT} (XML-RPC)"
        )
    if parts.username is not None or parts.password is not None:
        raise ConfigError("the address of oned holds a user or a password", "put those into the auth file")
    return endpoint.strip()


def _endpoint_file(own: Path | None) -> str | None:
    if own is None:
        return None
    try:
        return (own / "one_endpoint").read_text(encoding="utf-8")[:_LARGEST_BYTES].strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def _session(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            status = os.fstat(opened.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise AccessError(f"{file} is no plain file", "name OpenNebula's auth file")
            if status.st_uid not in (os.geteuid(), 0) or status.st_mode & 0o077:
                raise AccessError(
                    f"others can read or change {file}, which holds a password for OpenNebula",
                    f"chown {os.geteuid()} {file}; chmod 600 {file}",
                )
            text = opened.read(_LARGEST_BYTES)
    except FileNotFoundError as error:
        raise _no_credentials(f"there is no {file}") from error
    except OSError as error:
        raise AccessError(
            f"{file} cannot be read: {error.strerror}", "run as its owner (oneadmin)"
        ) from error
    session = text.decode("utf-8", "replace").strip()
    user, colon, secret = session.partition(":")
    if not (user and colon and secret and session.isprintable()):
        raise ConfigError(f"{file} does not hold one line USER:PASSWORD", "see `oneuser login --help`")
    return session


def _no_credentials(why: str) -> UnavailableError:
    return UnavailableError(
        f"no credentials for OpenNebula: {why}",
        "run as oneadmin, set ONE_AUTH, or set opennebula.auth_file in vmpack.toml",
    )
