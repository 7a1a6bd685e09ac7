"""The libvirt domain XML of a lab guest.

Called by `Lab`. Built as a tree, never by pasting text, so that no name can break out of its place.
"""

import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

from vmpack.errors import UnavailableError
from vmpack.lab.accelerator import Accelerator
from vmpack.lab.guest_spec import GuestSpec
from vmpack.lab.image import GuestImage
from vmpack.lab.state import GuestFiles
from vmpack.units import KIB

CONTROL_PORT = "vmpack.ctl.0"
AGENT_PORT = "org.qemu.guest_agent.0"

# Measured: less makes guests boot slowly, more only costs host memory.
_TRANSLATION_CACHE_MIB = 32


def find_emulator() -> Path:
    """The QEMU to run guests with. Raises UnavailableError."""
    for candidate in ("qemu-system-x86_64", "qemu-kvm", "/usr/libexec/qemu-kvm"):
        path = shutil.which(candidate)
        if path:
            return Path(path)
    raise UnavailableError("QEMU is missing", "install qemu-system-x86 (Debian, Ubuntu) or qemu-kvm (EL)")


def domain_xml(
    spec: GuestSpec,
    image: GuestImage,
    accelerator: Accelerator,
    emulator: Path,
    files: GuestFiles,
    mark: str,
) -> str:
    """Describe one guest with its sockets and console in `files`, as its libvirt sees them."""
    tcg = accelerator.kind == "tcg"
    domain = ET.Element("domain", type="qemu" if tcg else "kvm")
    _text(domain, "name", spec.name)
    if spec.uuid:
        _text(domain, "uuid", spec.uuid)
    for tag in ("memory", "currentMemory"):
        _text(domain, tag, str(spec.memory_bytes // KIB), unit="KiB")
    _text(domain, "vcpu", str(spec.vcpus), placement="static")
    _add_boot(domain, spec, image, mark)
    features = ET.SubElement(domain, "features")
    ET.SubElement(features, "acpi")
    if tcg:
        _text(ET.SubElement(features, "tcg"), "tb-cache", str(_TRANSLATION_CACHE_MIB), unit="MiB")
        cpu = ET.SubElement(domain, "cpu", mode="custom", match="exact", check="none")
        _text(cpu, "model", "qemu64", fallback="forbid")
    else:
        ET.SubElement(domain, "cpu", mode="host-passthrough")
    _text(domain, "on_poweroff", "destroy")
    _text(domain, "on_reboot", "restart")
    _text(domain, "on_crash", "destroy")
    _add_devices(ET.SubElement(domain, "devices"), spec, emulator, files)
    return ET.tostring(domain, encoding="unicode")


def read_spec(text: str) -> GuestSpec:
    """Name, memory, vCPUs and balloon that a lab guest's XML tells; the rest of the value is the default."""
    domain = ET.fromstring(text)
    balloon = domain.find("devices/memballoon")
    options = {} if balloon is None else balloon.attrib
    return GuestSpec(
        domain.findtext("name", ""),
        memory_bytes=int(domain.findtext("memory", "0")) * KIB,
        vcpus=int(domain.findtext("vcpu", "0")),
        autodeflate=options.get("autodeflate") == "on",
        free_page_reporting=options.get("freePageReporting") == "on",
    )


def _add_boot(domain: ET.Element, spec: GuestSpec, image: GuestImage, mark: str) -> None:
    boot = ET.SubElement(domain, "os")
    _text(boot, "type", "hvm", arch="x86_64", machine="q35")
    _text(boot, "kernel", str(image.kernel))
    _text(boot, "initrd", str(image.initramfs))
    words = ["console=ttyS0", "quiet", "no_timer_check", "mitigations=off", "nokaslr", "cryptomgr.notests"]
    words += [f"vmpack.name={spec.file_name}", f"vmpack.ports={1 + spec.guest_agent}", mark]
    if spec.zram_swap_bytes:
        words.append(f"vmpack.swap_bytes={spec.zram_swap_bytes}")
    _text(boot, "cmdline", " ".join(words))


def _add_devices(devices: ET.Element, spec: GuestSpec, emulator: Path, files: GuestFiles) -> None:
    _text(devices, "emulator", str(emulator))
    ET.SubElement(devices, "controller", type="usb", model="none")
    serial = ET.SubElement(devices, "serial", type="file")
    ET.SubElement(serial, "source", path=str(files.console(spec.file_name)), append="on")
    _add_channel(devices, CONTROL_PORT, files.control_socket(spec.file_name))
    if spec.guest_agent:
        _add_channel(devices, AGENT_PORT, files.agent_socket(spec.file_name))
    _add_balloon(devices, spec)
    _text(ET.SubElement(devices, "rng", model="virtio"), "backend", "/dev/urandom", model="random")
    ET.SubElement(ET.SubElement(devices, "video"), "model", type="none")
    for number, path in enumerate(spec.disks):
        disk = ET.SubElement(devices, "disk", type="file", device="disk")
        ET.SubElement(disk, "driver", name="qemu", type="qcow2" if path.suffix == ".qcow2" else "raw")
        ET.SubElement(disk, "source", file=str(path))
        ET.SubElement(disk, "target", dev=f"vd{chr(ord('a') + number)}", bus="virtio")
    if spec.network:
        ET.SubElement(ET.SubElement(devices, "interface", type="user"), "model", type="virtio")


def _add_balloon(devices: ET.Element, spec: GuestSpec) -> None:
    if not spec.balloon:
        ET.SubElement(devices, "memballoon", model="none")
        return
    balloon = ET.SubElement(
        devices,
        "memballoon",
        model="virtio",
        autodeflate=_on_off(spec.autodeflate),
        freePageReporting=_on_off(spec.free_page_reporting),
    )
    if spec.stats_period_s is not None:
        ET.SubElement(balloon, "stats", period=str(spec.stats_period_s))


def _add_channel(devices: ET.Element, port: str, socket: Path) -> None:
    channel = ET.SubElement(devices, "channel", type="unix")
    ET.SubElement(channel, "source", mode="bind", path=str(socket))
    ET.SubElement(channel, "target", type="virtio", name=port)


def _text(parent: ET.Element, tag: str, text: str, **attributes: str) -> None:
    ET.SubElement(parent, tag, attributes).text = text


def _on_off(value: bool) -> str:
    return "on" if value else "off"
