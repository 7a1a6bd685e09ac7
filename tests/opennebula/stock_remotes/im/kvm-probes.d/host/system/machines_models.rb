#!/bin/sh
echo 'KVM_MACHINES="pc q35"
KVM_CPU_MODELS="qemu64 Nehalem"'
