#!/bin/sh
# As the stock one: changes since the last call, and now and then the whole list.
# shellcheck source=/dev/null
. "${0%/*}/../../../../etc/vmm/kvm/kvmrc"
db=${ONE_DOUBLE_STATE:-${0%/*}/../../../status_kvm_$2.db}
virsh -c "$LIBVIRT_URI" list --name --uuid 2>/dev/null | sed -n 's/^\([-0-9a-f]*\) *one-\([0-9]*\) *$/VM = [ ID="\2", DEPLOY_ID="\1", STATE="RUNNING" ]/p' >"$db.new"
if [ -e "$db" ]; then
    grep -vxF -f "$db" "$db.new"
else
    printf 'SYNC_STATE=yes\nMISSING_STATE=POWEROFF\n'
    cat "$db.new"
fi
mv "$db.new" "$db"
exit 0
