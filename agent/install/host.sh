# shellcheck shell=sh
# The agent's service on this host: installing and removing it. Read by install.sh after program.sh.
# Promises: nothing is started or enabled unasked, and uninstall removes what the manifest names and nothing
# else, after the guests have their memory back.

purge=no
keep_packed=no

agent() {
    umask 022
    layout
    install_host
    [ "$dry_run" = yes ] || next_steps
}

install_host() {
    install_program write_manifest
    step "writing vmpack-agent.service and vmpack-release.service to $units_in" write_units
    ! has_systemd || step "telling systemd" systemctl daemon-reload
}

# The functions below run as steps, where `set -e` does not hold: hence each command's own && or || return.

write_manifest() {
    note_files "$units_in/vmpack-agent.service" "$units_in/vmpack-release.service" && one_note_access
}

write_units() { put_units vmpack-agent.service vmpack-release.service; }

next_steps() {
    "$program" check-config "$etc/vmpack.toml" >/dev/null || say "$etc/vmpack.toml was kept as it is; correct it before starting the agent"
    if agent_runs; then what='The agent runs'; else what='Nothing was started'; fi
    echo "Installed: $("$program" --version). $what. Next:"
    next "$bin/vmpack doctor" "what works on this host, and how much memory could be packed"
    next "$bin/vmpack agent --observe$options" "see what it would do; changes nothing"
    if agent_runs; then
        next "systemctl restart vmpack-agent" "after an upgrade, to use it: gives memory back, then packs again"
    elif has_systemd; then
        next "systemctl enable --now vmpack-agent" "run it, now and at each boot"
    elif [ -d /run/systemd/system ]; then
        next "systemctl link $units_in/vmpack-agent.service $units_in/vmpack-release.service" "let systemd know it"
    else
        next "$bin/vmpack agent$options" "run it; no systemd here: keep it running with what you have"
    fi
    next "$bin/vmpack top" "watch it"
}

agent_runs() { has_systemd && systemctl is-active --quiet vmpack-agent 2>/dev/null; }

uninstall() {
    layout
    one_uninstall
    if [ -e "$one_access" ]; then was_node=yes; else was_node=no; fi
    if [ -f "$manifest" ]; then
        if agent_runs || { has_systemd && systemctl is-enabled --quiet vmpack-agent 2>/dev/null; }; then
            step "stopping the service, which gives memory back" systemctl disable --now vmpack-agent
        fi
        give_back
        while IFS="$(printf '\t')" read -r kind path; do remove "$kind" "$path"; done <"$manifest"
        [ ! -d /run/vmpack ] || [ -n "$prefix" ] || step "removing what is empty of /run/vmpack" find /run/vmpack -depth -type d -empty -delete
        step "removing $home" remove_home
        ! has_systemd || step "telling systemd" systemctl daemon-reload
    else
        say "nothing is installed in $home"
    fi
    if [ "$dry_run" = yes ] && [ "$purge" = no ]; then
        return 0
    elif [ "$purge" = yes ]; then
        [ ! -e "$etc" ] || step "removing $etc" rm -rf "$etc"
        # below a prefix of root's: the state may be that of the installation for the whole host
        [ ! -e "$state" ] || [ -e /opt/vmpack/manifest ] || step "removing $state" rm -rf "$state"
    elif [ -d "$etc" ] && ! rmdir "$etc" 2>/dev/null; then
        [ ! -e "$state" ] || etc="$etc and $state"
        say "kept: $etc (--purge removes it)"
    fi
    [ "$was_node" = no ] || [ "$dry_run" = yes ] ||
        next "vmpack grant $(uname -n) --off" "on the front-end, as oneadmin, if it was not done first: no more is placed here than fits"
}

give_back() { # refuses to go on while guests would stay packed with nobody to look after them
    [ -x "$program" ] && [ -d "$state" ] || return 0
    [ -e "$etc/vmpack.toml" ] || options=
    # shellcheck disable=SC2086 # two words or none: layout refuses a prefix with a space
    set -- $options
    if [ "$dry_run" = no ] && agent_answers "$@"; then
        die 75 "an agent that was started by hand is still running" "stop it (Ctrl-C in its terminal), then try again"
    fi
    if ! try "giving all memory back" "$program" release --all "$@"; then
        tail -n "+$log_start" "$log" >&2
        [ "$keep_packed" = yes ] || die 1 "memory could not be given back, so nothing was removed" \
            "see above; is libvirt running? --keep-packed removes vmpack all the same"
    fi
    # release leaves the host frozen; a later installation must not start so
    try "lifting the freeze" "$program" freeze --off "$@" || say "the host stays frozen: $state"
}

agent_answers() { # OPTIONS
    code=0
    "$program" status "$@" >/dev/null 2>&1 || code=$?
    case $code in 0 | 3) return 0 ;; *) return 1 ;; esac
}
