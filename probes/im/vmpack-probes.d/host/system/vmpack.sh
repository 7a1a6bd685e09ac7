#!/bin/sh
# Prints the host's capacity and what is packed, in place of the stock linux_host.rb. Without a fresh text of
# the agent libvirt is asked; without that, the stock probe speaks: a host without capacity takes no VMs.
# Always exits 0: any other code puts the host in ERROR.
library=${0%/*}/../../../../vmpack
stock=${0%/*}/../../../kvm-probes.d/host/system/linux_host.rb
if [ -r "$library/probe.sh" ]; then
    # shellcheck source=probes/lib/probe.sh
    . "$library/probe.sh"
    fresh_text host-system 2>/dev/null && exit 0
    fallback_text host-system "$library" && exit 0
fi
text=$(timeout -k 1 20 "$stock" "$@" </dev/null 2>/dev/null)
case $text in
*TOTALMEMORY=*) ;;
*) # before OpenNebula 7.0 a text without these takes all capacity away
    read -r _ kib _ </proc/meminfo
    cpus=$(getconf _NPROCESSORS_CONF)
    text="HYPERVISOR=\"kvm\"
TOTALCPU=\"${cpus:-1}00\"
TOTALMEMORY=\"$kib\""
    ;;
esac
# Zeros, for OpenNebula never forgets what it was told before.
for name in PACKEDMEMORY OFFEREDMEMORY GPU_COUNT GPU_MIG_COUNT GPU_IDLE GPU_FAULTS GPU_MEMORY_TOTAL GPU_MEMORY_USED \
    GPU_UTILIZATION GPU_POWER_USAGE; do
    text="$text
$name=\"0\""
done
printf '%s\n' "$text" 'VMPACK_STATE="UNKNOWN"' 'VMPACK_VERSION="none"' 'GPU=[ ]'
exit 0
