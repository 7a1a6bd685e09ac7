"""What the probes print while no agent runs: the host's capacity, and the VMs as libvirt alone knows them.

Run by probe.sh as `/usr/bin/python3 -I -S -B fallback.py host-system|vm-snapshot`, by OpenNebula's own user.
Needs nothing of vmpack, for a node may not have it, and no newer Python than 3.8. Promises not to wait for a
libvirt that hangs, to write once or not at all, and only what OpenNebula's parser takes.
"""

import binascii
import os
import re
import sys
import threading

URI = os.environ.get("LIBVIRT_DEFAULT_URI", "qemu:///system")
CONFIG_DIR = os.environ.get("VMPACK_CONFIG_DIR", "/etc/vmpack")
TRIES_S = (3, 2)
"""A QEMU that hangs holds up the first call; the second one passes over it."""
LARGEST_KIB = 1 << 50
LARGEST_MHZ = 100000
PREFIXES = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}
NAMESPACE = "urn:vmpack:vm:1"
GPU_NAMES = "COUNT MIG_COUNT IDLE FAULTS MEMORY_TOTAL MEMORY_USED UTILIZATION POWER_USAGE"
UNTOLD = {"OFFEREDMEMORY": 0, "VMPACK_VERSION": "none", **{f"GPU_{name}": 0 for name in GPU_NAMES.split()}}
"""What only the agent knows; OpenNebula never forgets what it was told before."""
VM_GPU_NAMES = "COUNT UTILIZATION MEMORY_UTILIZATION MEMORY_FREE POWER_USAGE"
NO_GPU = "".join(f"GPU_{name}=[ ]\n" for name in VM_GPU_NAMES.split())
"""Takes back what the agent told of a VM's GPU."""


def main(category):
    """Print the text of one category; exits 0 unless there is none."""
    vms = ask()
    sys.stdout.write(host_text(vms) if category == "host-system" else vms_text(vms))
    sys.stdout.flush()
    os._exit(0)  # a call that hangs must not be waited for


def ask():
    """All VMs of OpenNebula as (id, nominal KiB, balloon KiB or None, text); None without libvirt's answer.

    The text is what is told besides.
    """
    python = f"python{sys.version_info.major}.{sys.version_info.minor}"
    sys.path += ["/usr/lib/python3/dist-packages"]
    sys.path += [f"/usr/{lib}/{python}/site-packages" for lib in ("lib64", "lib")]
    try:
        import libvirt
    except ImportError:
        return None
    for limit_s in TRIES_S:
        found = []
        asking = threading.Thread(target=read_vms, args=(libvirt, found), daemon=True)
        asking.start()
        asking.join(limit_s)
        if found:
            return list(found[0])
    return None


def read_vms(libvirt, found):
    """Put the list of VMs into `found` once there is one; each gets right as it answers by itself."""
    try:
        connection = libvirt.openReadOnly(URI)
        flags = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE
        flags |= libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
        told = connection.getAllDomainStats(libvirt.VIR_DOMAIN_STATS_BALLOON, flags)
    except libvirt.libvirtError:
        return
    read = [(domain, read_vm(domain, stats)) for domain, stats in told]
    domains = [domain for domain, vm in read if vm]
    vms = [vm for _, vm in read if vm]
    found.append(vms)
    with_gpus = has_gpus()
    for index, domain in enumerate(domains):
        vms[index] = completed(libvirt, domain, vms[index], with_gpus)


def read_vm(domain, stats):
    """The VM as its statistics have it; None where it is not OpenNebula's or tells nothing of use."""
    number = re.fullmatch("one-([0-9]{1,9})", domain.name())
    most_kib = stats.get("balloon.maximum", 0)
    if number is None or not 0 < most_kib <= LARGEST_KIB:
        return None
    balloon_kib = stats.get("balloon.current")
    if balloon_kib is not None and not 0 < balloon_kib <= most_kib:
        balloon_kib = None
    return (int(number.group(1)), most_kib, balloon_kib, "")


def completed(libvirt, domain, vm, with_gpus):
    """The same VM with what was promised to its owner, and without the GPU that an agent told of."""
    number, most_kib, balloon_kib, _ = vm
    nominal_kib = min(most_kib, promised_kib(libvirt, domain) or most_kib)
    return (number, nominal_kib, balloon_kib, NO_GPU if with_gpus and not has_device(libvirt, domain) else "")


def has_device(libvirt, domain):
    """Has it a device of the host's, of which its guest may tell by itself?"""
    try:
        return "<hostdev" in domain.XMLDesc(0)
    except libvirt.libvirtError:
        return True


def has_gpus(sys_folder="/sys"):
    """Has this host a GPU of NVIDIA's, so that an agent may have told of VMs that use it?"""
    devices = os.path.join(sys_folder, "bus/pci/devices")
    names = os.listdir(devices) if os.path.isdir(devices) else []
    return any(
        read(os.path.join(devices, name, "vendor")).strip() == "0x10de"
        and read(os.path.join(devices, name, "class")).startswith("0x03")
        for name in names
    )


def promised_kib(libvirt, domain):
    """What its owner was promised, as the agent or the driver noted it; None without a note."""
    try:
        note = domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, NAMESPACE, 0)
    except libvirt.libvirtError:
        return None
    nominal = re.search(r"\snominal=['\"]([0-9]{1,18})['\"]", note)
    return int(nominal.group(1)) // 1024 if nominal else None


def vms_text(vms):
    """All of vm/snapshot; without libvirt only that nobody knows, so that nothing old passes for news."""
    if vms is not None:
        return "".join(map(vm_block, vms))
    unknown = {"VMPACK_STATE": "NO_LIBVIRT", "VMPACK_REASON": "no_libvirt"}
    with_gpus = has_gpus()
    return "".join(
        block(number, unknown, NO_GPU if with_gpus and not device else "") for number, device in running()
    )


def running():
    """OpenNebula's VMs that have a QEMU here, whatever libvirt says: number, and has it a host's device?"""
    commands = (read(f"/proc/{pid}/cmdline") for pid in os.listdir("/proc") if pid.isdigit())
    names = ((re.search("\0-name\0guest=one-([0-9]{1,9})[,\0]", command), command) for command in commands)
    return sorted({int(name.group(1)): "vfio-pci" in command for name, command in names if name}.items())


def vm_block(vm):
    """One VM's line in vm/snapshot."""
    number, nominal_kib, balloon_kib, more = vm
    values = {"MAXMEMORY": nominal_kib, "VMPACK_FLOOR": 0, "VMPACK_TARGET": 0}
    values.update({"VMPACK_STATE": "NO_AGENT", "VMPACK_REASON": "no_agent"})
    if balloon_kib is None:
        values["VMPACK_STATE"] = "UNREADABLE"
    else:
        values["REALMEMORY"] = balloon_kib
        values["PACKEDMEMORY"] = max(0, nominal_kib - balloon_kib)
    return block(number, values, more)


def block(number, values, more):
    """What is told of one VM."""
    monitor = binascii.b2a_base64((lines(values) + more).encode("ascii"), newline=False).decode("ascii")
    return f'VM=[ ID="{number}", MONITOR="{monitor}" ]\n'


def host_text(vms):
    """The host's capacity as the stock probe tells it, and what is packed; zeros where nobody knows."""
    memory_kib = int(re.search(r"^MemTotal:\s+([0-9]+) kB", read("/proc/meminfo"), re.MULTILINE).group(1))
    top_khz = read("/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq")
    values = {
        "HYPERVISOR": "kvm",
        "TOTALCPU": 100 * cpus(),
        "CPUSPEED": cpu_mhz(read("/proc/cpuinfo"), top_khz),
        "TOTALMEMORY": pretended_kib() or memory_kib,
    }
    kinds = {line.split()[2] for line in read("/proc/mounts").splitlines() if line.count(" ") > 1}
    if kinds & {"cgroup", "cgroup2"}:
        values["CGROUPS_VERSION"] = 1 if "cgroup" in kinds else 2
    packed_kib = sum(max(0, nominal - balloon) for _, nominal, balloon, _ in vms or () if balloon is not None)
    values["PACKEDMEMORY"] = packed_kib
    values["VMPACK_STATE"] = "NO_LIBVIRT" if vms is None else "NO_AGENT"
    values.update(UNTOLD)
    return lines(values) + "GPU=[ ]\n"


def cpu_mhz(cpuinfo, top_khz):
    """The first CPU's speed, else its highest one; 0 where neither is told, as the agent has it."""
    told = re.search(r"^(?:cpu MHz|clock)\s*:\s*([0-9]+(?:\.[0-9]+)?)", cpuinfo, re.MULTILINE)
    khz = re.fullmatch(r"\s*([0-9]+)\s*", top_khz)
    mhz = round(float(told.group(1))) if told else int(khz.group(1)) // 1000 if khz else 0
    return mhz if mhz <= LARGEST_MHZ else 0


def cpus():
    """Logical CPUs that are there."""
    count = 0
    for part in read("/sys/devices/system/cpu/present").strip().split(","):
        first, _, last = part.partition("-")
        if first.isdigit():
            count += int(last or first) - int(first) + 1
    return count or os.cpu_count() or 1


def pretended_kib():
    """The size of a smaller host that the agent's configuration pretends; None when it does not."""
    names = [os.path.join(CONFIG_DIR, "vmpack.toml")]
    more = os.path.join(CONFIG_DIR, "conf.d")
    if os.path.isdir(more):
        names += [os.path.join(more, name) for name in sorted(os.listdir(more)) if name.endswith(".toml")]
    found = None
    for text in map(read, filter(os.path.isfile, names)):
        found = memory_bytes(text) or found
    return found // 1024 if found else None


def memory_bytes(text):
    """host.memory_bytes of one configuration file; None when it says nothing that can be used."""
    try:
        import tomllib

        size = str(tomllib.loads(text).get("host", {}).get("memory_bytes", ""))
    except (ImportError, ValueError, AttributeError):
        return None
    amount = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([KMGT]?)(|B|IB)\s*", size.upper())
    if amount is None:
        return None
    number, prefix, ending = amount.groups()
    return int(float(number) * (1000 if ending == "B" else 1024) ** PREFIXES[prefix])


def read(path):
    """A text file; empty where it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def lines(values):
    """NAME="value" lines; every value here is a number or one of our own words."""
    return "".join(f'{name}="{value}"\n' for name, value in values.items())


if __name__ == "__main__":
    main(sys.argv[1])
