# shellcheck shell=sh
# The agent on an OpenNebula node. Read by install.sh after opennebula.sh.
# Promises: oneadmin may speak to the agent and change what it does, nobody else; nothing runs unless --enable.

one_node() {
    getent group oneadmin >/dev/null ||
        die 69 "this is no OpenNebula node: there is no group oneadmin" "install OpenNebula's node package first (opennebula-node-kvm)"
    extras=opennebula
    install_host
    one_access=$etc/conf.d/50-opennebula.toml
    restart=no
    if [ ! -e "$one_access" ]; then
        step "letting the group oneadmin speak to the agent: $one_access" one_write_access
        restart=yes
    fi
    [ "$enable" = no ] || one_enable
    [ "$dry_run" = yes ] || next_steps
}

one_write_access() {
    mkdir -p "$etc/conf.d" && cat >"$one_access.new" <<'END' && mv "$one_access.new" "$one_access"
# Written by install.sh opennebula --node: OpenNebula's drivers and `vmpack grant` come as oneadmin.
[agent]
socket_group = "oneadmin"
socket_group_may_change = true
END
}

one_enable() {
    has_systemd || [ "$dry_run" = yes ] || die 69 "--enable needs systemd" "without it keep running: $bin/vmpack agent$options"
    if [ "$restart" = yes ] && systemctl is-active --quiet vmpack-agent 2>/dev/null; then
        step "restarting the agent: a group's rights are read at its start" systemctl restart vmpack-agent
    fi
    step "running the agent, now and at each boot" systemctl enable --now vmpack-agent
}
