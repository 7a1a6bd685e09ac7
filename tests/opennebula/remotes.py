"""A double of OpenNebula's remotes tree (R on a front-end, N on a node) whose files keep the stock contract.

Used by tests of probes, drivers and installation. The files are in stock_remotes/: probes that print what the
stock ones print, VMM actions as a few lines of shell on virsh. LIBVIRT_DEFAULT_URI names a node's libvirt,
ONE_DOUBLE_HOSTS a file with one line "HOST URI" for each host that a VM can migrate to.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

STOCK = Path(__file__).parent / "stock_remotes"
REPOSITORY = Path(__file__).parents[2]

CATEGORIES = (
    "host/beacon",
    "host/monitor",
    "host/system",
    "vm/execution",
    "vm/monitor",
    "vm/snapshot",
    "vm/status",
)


def front_end(target: Path) -> Path:
    """R as OpenNebula installs it, without anything of ours, at `target`, which must not exist yet."""
    shutil.copytree(STOCK, target, symlinks=True)
    for category in CATEGORIES:
        (target / "im/kvm-probes.d" / category).mkdir(parents=True, exist_ok=True)
    for name in ("qemu", "qemu-probes"):
        (target / f"im/{name}.d").symlink_to(f"{name.replace('qemu', 'kvm')}.d")
    return target


def add_probes(remotes: Path) -> Path:
    """Put our probes into R as an installation does: own files, the rest as relative links to stock ones."""
    shutil.copytree(REPOSITORY / "probes/lib", remotes / "vmpack", dirs_exist_ok=True)
    _link_all(remotes / "im/vmpack.d", remotes / "im/kvm.d")
    for category in CATEGORIES:
        ours = remotes / "im/vmpack-probes.d" / category
        _link_all(ours, remotes / "im/kvm-probes.d" / category)
        own = REPOSITORY / "probes/im/vmpack-probes.d" / category
        if own.is_dir():
            shutil.copytree(own, ours, dirs_exist_ok=True)
    (remotes / "im/vmpack-probes.d/host/system/linux_host.rb").unlink()
    _link_all(remotes / "etc/im/vmpack-probes.d", remotes / "etc/im/kvm-probes.d")
    return remotes


def add_drivers(remotes: Path) -> Path:
    """Put our VMM actions into R as an installation does."""
    ours = remotes / "vmm/vmpack"
    _link_all(ours, remotes / "vmm/kvm")
    for own in sorted((REPOSITORY / "drivers/opennebula/vmm/vmpack").iterdir()):
        (ours / own.name).unlink(missing_ok=True)
        shutil.copy2(own, ours / own.name)
    return remotes


def synchronize(remotes: Path, node: Path) -> Path:
    """Make N equal to R, as START_MONITOR does: links become files, what R lacks goes away.

    Raises FileNotFoundError where R has a broken link: the real one then fails for every host.
    """
    if node.exists():
        shutil.rmtree(node)
    shutil.copytree(remotes, node, symlinks=False)
    return node


def hosts_file(path: Path, uris: Mapping[str, str]) -> Path:
    """The file for ONE_DOUBLE_HOSTS."""
    path.write_text("".join(f"{name} {uri}\n" for name, uri in uris.items()))
    return path


def _link_all(target: Path, stock: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for entry in sorted(stock.iterdir()):
        (target / entry.name).symlink_to(os.path.relpath(entry, target))
