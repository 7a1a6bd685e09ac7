# shellcheck shell=sh
# Taking vmpack off an OpenNebula front-end. Read by install.sh after opennebula.sh.
# Promises: no host and no VM loses its driver: where one still carries ours nothing is removed, or hosts are
# converted first (--convert), and the folder that VMs' records name stays as links to the stock scripts.

one_uninstall() {
    one_manifest=$home/opennebula
    [ -f "$one_manifest" ] || return 0
    remotes=$(one_noted remotes) one_etc=$(one_noted etc) one_bin=$(one_noted bin) owner=$(one_noted owner)
    find_python || :
    carriers=
    if [ ! -d "$remotes" ]; then
        say "OpenNebula itself is gone from $remotes"
    elif hosts=$(one_hosts) && carriers=$(one_carriers); then
        one_free_hosts
    elif [ "$keep_packed" = no ]; then
        die 75 "OpenNebula cannot be asked which hosts use vmpack's drivers, so nothing was removed" \
            "is it running? as $owner: onehost list. --keep-packed removes vmpack all the same"
    fi
    if [ -n "$carriers" ]; then one_stay_as_links; else one_remove; fi
}

one_noted() { sed -n "s/^$1$tab//p" "$one_manifest" | head -n 1; }

one_carriers() { # VMs whose record names our driver: ID, name, driver, host
    list=$(as_owner "$one_bin/onevm" list -x) && list=$(printf '%s\n' "$list" | one_xml vms) &&
        printf '%s\n' "$list" | { grep "${tab}vmpack$tab" || :; }
}

one_free_hosts() { # grants back, then hosts back to the drivers that they had
    ours=$(printf '%s\n' "$hosts" | { grep -E "^[^$tab]*$tab[^$tab]*$tab(vmpack$tab|[^$tab]*${tab}vmpack$tab)" || :; })
    if [ -n "$ours$carriers" ] && [ "$convert" = no ]; then
        [ -z "$ours" ] || say "hosts with vmpack's drivers: $(printf '%s\n' "$ours" | cut -f 2 | tr '\n' ' ')"
        [ -z "$carriers" ] || say "VMs that were started by them: $(printf '%s\n' "$carriers" | cut -f 1 | tr '\n' ' ')"
        [ "$dry_run" = yes ] || die 75 "vmpack's drivers are in use, so nothing was removed" \
            "first, as $owner: vmpack opennebula convert HOST --back; or let --convert do it for all of them"
        echo "would: refuse, because vmpack's drivers are in use; --convert would go on"
        exit 75
    fi
    one_stop_timer
    [ -e "$etc/vmpack.toml" ] || options=
    # shellcheck disable=SC2086 # two words or none: layout refuses a prefix with a space
    set -- $options
    if printf '%s\n' "$hosts" | grep -qE "$tab(granted|marked)\$"; then
        step "taking back what was granted: vmpack grant --off (as $owner)" as_owner "$program" grant --off "$@"
    fi
    for host in $(printf '%s\n' "$ours" | cut -f 2); do
        step "converting $host: vmpack opennebula convert $host --back (as $owner)" \
            as_owner "$program" opennebula convert "$host" --back "$@"
    done
}

one_stay_as_links() { # VMs go on by their record until they are moved, stopped or ended
    step "making $remotes/vmm/vmpack links to the stock scripts alone" one_only_links
    [ "$no_sync" = yes ] || one_sync
    say "these VMs still go by the name of our driver, which now is the stock one: $(printf '%s\n' "$carriers" | cut -f 1 | tr '\n' ' ')"
    die 3 "the program and the driver's name stay until those VMs are gone from it" \
        "move each to another host (onevm migrate --live), or stop and resume it, then run uninstall again"
}

one_only_links() {
    if am_root; then give=chown; else give=:; fi
    for file in "$remotes"/vmm/kvm/*; do
        one_link "../kvm/${file##*/}" "$remotes/vmm/vmpack/${file##*/}" && $give -h "$owner" "$remotes/vmm/vmpack/${file##*/}" || return 1
    done
    for file in "$remotes"/vmm/vmpack/*; do
        [ -L "$file" ] || ! one_is_noted "vmm/vmpack/${file##*/}" || rm -f "$file" || return 1
    done
}

one_is_noted() { grep -qxF "at$tab$1" "$one_manifest"; }

one_remove() {
    changed_conf=
    one_stop_timer
    one_unregister
    step "removing the drivers from $remotes" one_take_files
    # what stands on the nodes goes with the next copy
    [ ! -d "$remotes" ] || [ "$no_sync" = yes ] || one_sync
    step "removing $one_manifest" rm -f "$one_manifest"
    [ "$changed_conf" != yes ] || [ "$dry_run" = yes ] || next "systemctl restart opennebula" "its configuration has changed"
}

one_take_files() {
    sed -n "s/^at$tab//p" "$one_manifest" | while read -r path; do rm -f "$remotes/$path" || exit 1; done || return 1
    sed -n "s/^dir$tab//p" "$one_manifest" | LC_ALL=C sort -r | while read -r path; do
        [ ! -d "$remotes/$path" ] || rmdir "$remotes/$path" || echo "kept, because something is in it: $remotes/$path"
    done
}
