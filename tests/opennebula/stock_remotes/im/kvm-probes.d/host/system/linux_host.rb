#!/bin/sh
echo "HYPERVISOR=kvm
TOTALCPU=$(($(getconf _NPROCESSORS_CONF) * 100))
CPUSPEED=0
TOTALMEMORY=$(sed -n 's/^MemTotal: *\([0-9]*\) kB/\1/p' /proc/meminfo)
CGROUPS_VERSION=2"
