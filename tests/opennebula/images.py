"""A double of OpenNebula's images for install.sh: the command oneimage, and which VM may use them.

The command is this file; it keeps the images in images.json beside it. As with oned a new image is for its
owner alone (DEFAULT_UMASK 177), and a file is found by name among the images of one user only.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

CONTEXT = 5


class NotInstantiatedError(Exception):
    """oned makes no VM of it."""


def instantiate(folder: Path, oned_conf: str, context: str, uid: int) -> list[int]:
    """The images that a VM of this user gets. Raises NotInstantiatedError."""
    if re.search(r'TOKEN *= *"YES"', context) and not re.search(r"^ *ONEGATE_ENDPOINT *=", oned_conf, re.M):
        raise NotInstantiatedError("TOKEN without ONEGATE_ENDPOINT")
    found = []
    for words in re.findall(r"\$FILE\[([^\]]*)\]", context.replace('\\"', '"')):
        named = dict(re.findall(r'(\w+) *= *"?([^",\]]*)"?', words))
        owner = 0 if named.get("IMAGE_UNAME") == "oneadmin" else int(named.get("IMAGE_UID", uid))
        images = [
            image
            for image in _read(folder)
            if str(image["id"]) == named.get("IMAGE_ID")
            or (image["name"], image["uid"]) == (named.get("IMAGE"), owner)
        ]
        if not images:
            raise NotInstantiatedError(f"user {owner} has no image {words}")
        if images[0]["uid"] != uid and not images[0]["mode"] & 0o004:
            raise NotInstantiatedError(f"user {uid} may not use image {images[0]['id']}")
        found.append(images[0]["id"])
    return found


def add(folder: Path, name: str, *, uid: int = 0, kind: int = CONTEXT, state: int = 1) -> int:
    """An image that is there; gives its ID."""
    images = _read(folder)
    if any((image["name"], image["uid"]) == (name, uid) for image in images):
        raise SystemExit(f"NAME is already taken by IMAGE {name}")
    number = 7 + len(images)
    images.append({"id": number, "name": name, "uid": uid, "kind": kind, "state": state, "mode": 0o600})
    (folder / "images.json").write_text(json.dumps(images))
    return number


def _read(folder: Path) -> list[dict[str, Any]]:
    file = folder / "images.json"
    return list(json.loads(file.read_text())) if file.exists() else []


def _pool(images: list[dict[str, Any]]) -> str:
    bodies = (
        f"<IMAGE><ID>{image['id']}</ID><UID>{image['uid']}</UID><NAME>{image['name']}</NAME>"
        f"<TYPE>{image['kind']}</TYPE><STATE>{image['state']}</STATE></IMAGE>"
        for image in images
    )
    return f"<IMAGE_POOL>{''.join(bodies)}</IMAGE_POOL>"


def main(folder: Path, words: list[str]) -> None:
    """`oneimage WORDS`."""
    with (folder.parent / "calls").open("a") as calls:
        calls.write(f"oneimage {' '.join(words)}\n")
    if words[0] == "list":
        sys.stdout.write(_pool(_read(folder)))
    elif words[0] == "create":
        given = dict(zip(words[1::2], words[2::2], strict=True))
        Path(given["--path"]).read_bytes()
        add(folder, given["--name"], kind={"CONTEXT": CONTEXT}[given["--type"]])
    elif words[0] == "chmod":
        images = _read(folder)
        (image,) = (image for image in images if str(image["id"]) == words[1])
        image["mode"] = int(words[2], 8)
        (folder / "images.json").write_text(json.dumps(images))
    else:
        raise SystemExit(f"oneimage does not know {words[0]}")


if __name__ == "__main__":
    main(Path(__file__).resolve().parents[1], sys.argv[1:])
