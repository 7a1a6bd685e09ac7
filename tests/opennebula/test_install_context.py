"""install.sh opennebula --context on a double of a front-end: images for all VMs, and templates."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.opennebula import images
from tests.opennebula.front_end import FrontEnd, front_end

OWNER = 5


@pytest.fixture
def place(tmp_path: Path) -> FrontEnd:
    """A front-end with no image."""
    return front_end(tmp_path)


def uploads(place: FrontEnd) -> list[str]:
    """How images were made."""
    return [call for call in place.machine.calls("oneimage") if " create " in call]


def template(place: FrontEnd, *contexts: str) -> None:
    """The VM templates that there are."""
    body = "".join(
        f"<VMTEMPLATE><ID>{number}</ID><NAME>t{number}</NAME><TEMPLATE>{context}</TEMPLATE></VMTEMPLATE>"
        for number, context in enumerate(contexts)
    )
    place.answers("templates", f"<VMTEMPLATE_POOL>{body}</VMTEMPLATE_POOL>")


def test_vms_of_every_user_can_be_made_with_what_is_printed(place: FrontEnd) -> None:
    """No user but oneadmin could start a VM of a template that has what install.sh told to put there."""
    template(place, "")
    code, said = place.install("--no-sync", "--context")
    assert code == 0, said
    (context,) = re.findall(r"CONTEXT = \[.*?\" \]", said, re.DOTALL)
    conf = (place.etc / "oned.conf").read_text()
    for user in (0, OWNER):
        assert len(images.instantiate(place.one, conf, context, user)) == 2


def test_a_token_needs_an_endpoint_and_that_is_said(place: FrontEnd) -> None:
    """Each VM of such a template would fail, with a message that its owner can do nothing about."""
    conf = place.etc / "oned.conf"
    conf.write_text(conf.read_text().replace("ONEGATE_ENDPOINT", "#ONEGATE_ENDPOINT"))
    code, said = place.install("--no-sync", "--context")
    assert code == 3 and "set ONEGATE_ENDPOINT in" in said


def test_context_files_are_uploaded_once(place: FrontEnd) -> None:
    """Each run would fail, because their names are taken."""
    code, said = place.install("--no-sync", "--context")
    assert code == 0, said
    assert len(uploads(place)) == 2
    assert all("--type CONTEXT" in call and "--datastore files" in call for call in uploads(place))
    code, said = place.install("--no-sync", "--context=other")
    assert code == 0 and "is there already" in said
    assert len(uploads(place)) == 2
    assert not list(Path("/var/tmp").glob("vmpack-context.*"))


@pytest.mark.parametrize(
    ("name", "uid", "kind"),
    [
        ("onegate_init.sh", OWNER, images.CONTEXT),
        ("onegate_init.sh", 0, 0),
        ("onegate_initXsh", 0, images.CONTEXT),
    ],
    ids=["of another user", "a disk", "another name"],
)
def test_an_image_of_somebody_else_is_not_taken_for_ours(
    place: FrontEnd, name: str, uid: int, kind: int
) -> None:
    """Whoever made an image of that name first would choose what runs as root in all guests."""
    images.add(place.one, name, uid=uid, kind=kind)
    code, said = place.install("--no-sync", "--context")
    mine = [call for call in uploads(place) if "--name onegate_init.sh" in call]
    assert len(mine) == 1
    # oned itself refuses two images of one name, of whatever kind, for one user
    assert code == (1 if (name, uid) == ("onegate_init.sh", 0) else 0), said


def test_templates_without_the_reporter_are_listed(place: FrontEnd) -> None:
    """Nobody would know which guests report nothing, or which users' VMs cannot start."""
    first = images.add(place.one, "onegate_init.sh")
    second = images.add(place.one, "onegate_publisher.sh")
    names = ("onegate_init.sh", "onegate_publisher.sh")
    anybodys = " ".join(f'$FILE[IMAGE="{name}"]' for name in names)
    ours = " ".join(f'$FILE[IMAGE="{name}", IMAGE_UNAME="oneadmin"]' for name in names)
    by_id = f"$FILE[IMAGE_ID={first}] $FILE[ IMAGE_ID = {second} ]"
    token = "<TOKEN>YES</TOKEN>"
    template(
        place,
        "",
        f"<CONTEXT><FILES_DS><![CDATA[{ours}]]></FILES_DS>{token}</CONTEXT>",
        f"<CONTEXT><FILES_DS>{by_id}</FILES_DS><TOKEN>yes</TOKEN></CONTEXT>",
        f"<CONTEXT><FILES_DS><![CDATA[{ours}]]></FILES_DS></CONTEXT>",
        f"<CONTEXT><FILES_DS><![CDATA[{anybodys}]]></FILES_DS>{token}</CONTEXT>",
        f"<CONTEXT><FILES_DS>$FILE[IMAGE_ID={first}] $FILE[IMAGE_ID={second}9]</FILES_DS>{token}</CONTEXT>",
    )
    code, said = place.install("--no-sync", "--context")
    assert code == 0, said
    listed = re.findall(r"^  \d  (t\d)$", said, re.MULTILINE)
    assert listed == ["t0", "t3", "t4", "t5"]
