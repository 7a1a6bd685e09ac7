"""Reads what OpenNebula's own commands print as XML (`-x`), for install.sh: one line of text an object.

Called as `python3 opennebula_xml.py hosts|vms|context-files NAME|templates [IMAGE-ID...] <file`. Promises:
plain words separated by tabs, and exit code 1 with one line where the input is no such XML. Standard library
only: it runs before vmpack is there.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from xml.etree import ElementTree

OUR_FILES = ("onegate_init.sh", "onegate_publisher.sh")

DEPLOYED_ANEW = ("1", "2", "4", "6", "9")
"""Pending, held, stopped, done, undeployed: oned takes the driver from the host of the next deployment."""


def word(element: ElementTree.Element, path: str) -> str:
    """The text there, as one word that is safe to print."""
    text = element.findtext(path) or "-"
    return "".join(sign if sign.isalnum() or sign in "._-" else "_" for sign in text.strip()) or "-"


def hosts(pool: ElementTree.Element) -> Iterator[str]:
    """ID, name, IM_MAD, VM_MAD; and of a grant: granted, marked (somebody else's value stands now) or -."""
    for host in pool.iter("HOST"):
        words = [word(host, name) for name in ("ID", "NAME", "IM_MAD", "VM_MAD")]
        ours, stands = (
            (host.findtext(f"TEMPLATE/{name}") or "").strip()
            for name in ("VMPACK_RESERVED_SET", "RESERVED_MEM")
        )
        yield "\t".join([*words, "-" if not ours else "granted" if ours == stands else "marked"])


def vms(pool: ElementTree.Element) -> Iterator[str]:
    """ID, name, the VM_MAD of the last history record, and its host; only VMs that go on with that record."""
    for vm in pool.iter("VM"):
        records = vm.findall("HISTORY_RECORDS/HISTORY")
        if records and vm.findtext("STATE") not in DEPLOYED_ANEW:
            last = max(records, key=lambda record: int(record.findtext("SEQ") or 0))
            yield "\t".join([word(vm, "ID"), word(vm, "NAME"), word(last, "VM_MAD"), word(last, "HOSTNAME")])


def context_files(pool: ElementTree.Element) -> Iterator[str]:
    """ID and state of oneadmin's own context file of this name."""
    for image in pool.iter("IMAGE"):
        if (image.findtext("NAME"), image.findtext("UID"), image.findtext("TYPE")) == (sys.argv[2], "0", "5"):
            yield "\t".join(word(image, name) for name in ("ID", "STATE"))


def named_files(text: str) -> Iterator[dict[str, str]]:
    """What each $FILE[...] names."""
    for words in re.findall(r"\$FILE\[([^\]]*)\]", text):
        yield dict(re.findall(r'([A-Z_]+)\s*=\s*\\?"?([^",\\\s]*)', words))


def is_oneadmins(file: dict[str, str]) -> bool:
    """Without its owner a name is sought among the images of the VM's own user."""
    return file.get("IMAGE_UNAME") == "oneadmin" or file.get("IMAGE_UID") == "0"


def templates(pool: ElementTree.Element) -> Iterator[str]:
    """ID and name of the VM templates whose context lacks the reporter or the token that it needs."""
    ids = set(sys.argv[2:])
    for template in pool.iter("VMTEMPLATE"):
        context = template.find("TEMPLATE/CONTEXT")
        texts = {} if context is None else {child.tag: child.text or "" for child in context}
        files = list(named_files(texts.get("FILES_DS", "")))
        by_name = {file.get("IMAGE") for file in files if is_oneadmins(file)}
        named = by_name.issuperset(OUR_FILES) or (ids and ids <= {file.get("IMAGE_ID") for file in files})
        if not named or texts.get("TOKEN", "").upper() != "YES":
            yield "\t".join([word(template, "ID"), word(template, "NAME")])


def main() -> int:
    """Print the lines; 1 when the input is not what it should be."""
    wanted = {"hosts": hosts, "vms": vms, "context-files": context_files, "templates": templates}[sys.argv[1]]
    try:
        pool = ElementTree.fromstring(sys.stdin.buffer.read())
        lines = list(wanted(pool))
    except (ElementTree.ParseError, ValueError) as error:
        sys.stderr.write(f"no list of OpenNebula's: {error}\n")
        return 1
    for line in lines:
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
