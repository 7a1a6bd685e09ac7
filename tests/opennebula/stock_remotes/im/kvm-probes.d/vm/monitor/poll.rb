#!/bin/sh
# shellcheck source=/dev/null
. "${0%/*}/../../../../etc/vmm/kvm/kvmrc"
virsh -c "$LIBVIRT_URI" domstats --balloon 2>/dev/null | sed -n "s/^Domain: 'one-\([0-9]*\)'/id \1/p; s/^ *balloon.rss=/rss /p" |
    while read -r key value; do
        case $key in
        id) id=$value ;;
        rss) printf 'VM = [ ID="%s", MONITOR="%s" ]\n' "$id" "$(printf 'CPU="1.0"\nMEMORY="%s"\n' "$value" | base64 -w 0)" ;;
        esac
    done
exit 0
