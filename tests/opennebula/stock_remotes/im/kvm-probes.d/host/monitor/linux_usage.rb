#!/bin/sh
total=$(sed -n 's/^MemTotal: *\([0-9]*\) kB/\1/p' /proc/meminfo)
free=$(sed -n 's/^MemFree: *\([0-9]*\) kB/\1/p' /proc/meminfo)
echo "HYPERVISOR=kvm
USEDMEMORY=$((total - free))
FREEMEMORY=$free
FREECPU=150
USEDCPU=50
NETRX=1
NETTX=2"
