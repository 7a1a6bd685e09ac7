# shellcheck shell=sh
# The agent on an OpenNebula node. Read by install.sh after opennebula.sh.
# Promises: oneadmin may speak to the agent and change what it does, nobody else; nothing runs unless --enable.

one_node() {
    getent group oneadmin >/dev/null ||
        die 69 "this is no OpenNebula node: there is no group oneadmin" "install OpenNebula's node package first (opennebula-node-kvm)"
    extras=opennebula
    install_host
    restart=no
    if [ ! -e "$one_access" ]; then
        step "letting the group oneadmin speak to the agent: $one_access" one_write_access
        restart=yes
    fi
    if [ "$enable" = yes ]; then
        one_enable
    elif [ "$restart" = yes ] && agent_runs; then
        say "the agent that runs does not let oneadmin in yet: systemctl restart vmpack-agent"
    fi
    [ "$dry_run" = yes ] || next_steps
}

agent_runs() { command -v systemctl >/dev/null && systemctl is-active --quiet vmpack-agent 2>/dev/null; }

need_systemd() { # COMMAND that does the same
    has_systemd || [ "$dry_run" = yes ] || die 69 "--enable needs systemd" "without it keep running: $1"
}

one_note_access() { # in the manifest, unless an administrator wrote such a file himself
    if [ -e "$one_access" ]; then
        grep -q '^# Written by install.sh opennebula' "$one_access" || return 0
    elif [ "$node" = no ]; then
        return 0
    fi
    for line in "file$tab$one_access" "folder$tab${one_access%/*}"; do
        grep -qxF "$line" "$manifest" || printf '%s\n' "$line" >>"$manifest" || return 1
    done
}

one_write_access() {
    mkdir -p "$etc/conf.d" && cat >"$one_access.new" <<'END' && mv "$one_access.new" "$one_access"
# Written by install.sh opennebula --node, and removed by uninstall: put what you change into another file.
# OpenNebula's drivers and `vmpack grant` come as oneadmin.
[agent]
socket_group = "oneadmin"
socket_group_may_change = true
END
}

one_enable() {
    need_systemd "$bin/vmpack agent$options"
    if [ "$restart" = yes ] && agent_runs; then
        step "restarting the agent: a group's rights are read at its start" systemctl restart vmpack-agent
    fi
    step "running the agent, now and at each boot" systemctl enable --now vmpack-agent
}
