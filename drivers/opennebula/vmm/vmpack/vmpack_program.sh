# shellcheck shell=sh
# Finds vmpack on a host: $vmpack is its path, empty where there is none. Sourced by what lies beside it.

vmpack=
for program in "${VMPACK_PROGRAM:-/opt/vmpack/current/bin/vmpack}" /usr/local/bin/vmpack /usr/bin/vmpack; do
    # shellcheck disable=SC2034 # used by who sources this
    [ ! -x "$program" ] || { vmpack=$program && break; }
done
