# shellcheck shell=sh
# The agent on this host: installing and removing it. Read by install.sh.
# Promises: a new version replaces the old in one rename, a configuration is never overwritten, and uninstall
# removes what the manifest names and nothing else, after the guests have their memory back.

prefix=
purge=no
keep_packed=no

layout() { # where things go
    if [ -n "$prefix" ]; then
        case $prefix in /*) ;; *) prefix=$(pwd)/$prefix ;; esac
        case $prefix in *[!A-Za-z0-9/._+@,:~-]*) die 2 "the prefix holds a character that systemd units cannot" "use letters, digits and / . _ + @ , : ~ -" ;; esac
        home=$prefix/lib/vmpack bin=$prefix/bin etc=$prefix/etc/vmpack units_in=$prefix/lib/systemd/system
        options=" --config $etc/vmpack.toml"
    else
        home=/opt/vmpack bin=/usr/bin etc=/etc/vmpack units_in=/etc/systemd/system options=
    fi
    if am_root; then state=/var/lib/vmpack; else state=${XDG_STATE_HOME:-$HOME/.local/state}/vmpack; fi
    manifest=$home/manifest
    program=$home/current/bin/vmpack
    if [ -z "$prefix" ] && [ "$dry_run" = no ] && ! am_root; then
        die 77 "changing the whole host needs root" "run it with sudo, or below a folder of yours: --prefix \"\$HOME/.local\""
    fi
}

has_systemd() { [ -z "$prefix" ] && [ -d /run/systemd/system ]; }

agent() {
    umask 022
    layout
    need_packages agent
    for name in vmpack memory_coordinator; do
        if [ -e "$bin/$name" ] && [ "$(readlink "$bin/$name")" != "$home/current/bin/$name" ]; then
            die 1 "$bin/$name is there already and is not ours" "move it away, or use --prefix"
        fi
    done
    release=$home/releases/$(source_identity)
    previous=$(readlink "$home/current" 2>/dev/null || :)
    step "writing down what will be installed in $manifest" write_manifest
    [ -e "$release/.complete" ] || step "installing the program in $release" install_release
    [ "$previous" = "$release" ] && [ -e "$bin/vmpack" ] && [ -e "$bin/memory_coordinator" ] || step "linking $bin/vmpack and $bin/memory_coordinator to it" point_links
    [ -e "$etc/vmpack.toml" ] || step "writing the default configuration to $etc/vmpack.toml" write_default_config
    step "writing vmpack-agent.service and vmpack-release.service to $units_in" write_units
    ! has_systemd || step "telling systemd" systemctl daemon-reload
    [ "$dry_run" = yes ] || next_steps
}

source_identity() {
    (
        cd "$root"
        "$python" -V
        find agent setup.cfg pyproject.toml -type f ! -path '*/__pycache__/*' ! -path '*.egg-info/*' -exec cksum {} + |
            LC_ALL=C sort
    ) 2>/dev/null | cksum | cut -d ' ' -f 1
}

# The functions below run as steps, where `set -e` does not hold: hence each command's own && or || return.

write_manifest() { # kind, tab, path; uninstall removes these and nothing else
    mkdir -p "$home" "$bin" "$etc" "$units_in" && {
        printf 'link\t%s\n' "$bin/vmpack" "$bin/memory_coordinator"
        printf 'file\t%s\n' "$units_in/vmpack-agent.service" "$units_in/vmpack-release.service"
        printf 'tree\t%s\n' "$home/releases" "$home/current"
    } >"$manifest"
}

install_release() {
    rm -rf "$release" &&
        "$python" -m venv --system-site-packages "$release" &&
        mkdir "$release/source" &&
        # pip builds in the folder it is given: a copy keeps the checkout clean, and a stale build out
        (cd "$root" && cp -R agent setup.cfg pyproject.toml README.md LICENSE "$release/source/") &&
        "$release/bin/python" -m pip install --disable-pip-version-check "$release/source" &&
        rm -rf "$release/source" &&
        "$release/bin/vmpack" --version &&
        touch "$release/.complete"
}

point_links() { # the release before this one stays, for a program that still runs from it
    ln -sfn "$release" "$home/current.new" && mv -fT "$home/current.new" "$home/current" || return 1
    for name in vmpack memory_coordinator; do
        ln -sfn "$home/current/bin/$name" "$bin/$name" || return 1
    done
    for old in "$home"/releases/*; do
        [ "$old" = "$release" ] || [ "$old" = "$previous" ] || rm -rf "$old"
    done
}

write_default_config() {
    "$program" check-config --default >"$etc/vmpack.toml.new" && mv "$etc/vmpack.toml.new" "$etc/vmpack.toml"
}

write_units() {
    for unit in vmpack-agent vmpack-release; do
        sed -e "s|@VMPACK@|$bin/vmpack|g" -e "s|@CONFIG@|$etc/vmpack.toml|g" -e "s|@OPTIONS@|$options|g" \
            "$root/agent/vmpack/data/systemd/$unit.service" >"$units_in/$unit.service" || return 1
    done
}

next_steps() {
    "$program" check-config "$etc/vmpack.toml" >/dev/null || say "$etc/vmpack.toml was kept as it is; correct it before starting the agent"
    echo "Installed: $("$program" --version). Nothing was started. Next:"
    next "$bin/vmpack doctor" "what works on this host, and how much memory could be packed"
    next "$bin/vmpack agent --observe$options" "see what it would do; changes nothing"
    if has_systemd && systemctl is-active --quiet vmpack-agent; then
        next "systemctl restart vmpack-agent" "use this version: gives memory back, then packs again"
    elif has_systemd; then
        next "systemctl enable --now vmpack-agent" "run it, now and at each boot"
    elif [ -d /run/systemd/system ]; then
        next "systemctl link $units_in/vmpack-agent.service $units_in/vmpack-release.service" "let systemd know it"
    else
        next "$bin/vmpack agent$options" "run it; no systemd here: keep it running with what you have"
    fi
    next "$bin/vmpack top" "watch it"
}

next() { printf '  %s\n      %s\n' "$1" "$2"; }

uninstall() {
    layout
    if [ -f "$manifest" ]; then
        if has_systemd && { systemctl is-enabled --quiet vmpack-agent || systemctl is-active --quiet vmpack-agent; }; then
            step "stopping the service, which gives memory back" systemctl disable --now vmpack-agent
        fi
        give_back
        while IFS="$(printf '\t')" read -r kind path; do remove "$kind" "$path"; done <"$manifest"
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
        say "kept: $etc and $state (--purge removes them)"
    fi
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

remove() { # KIND PATH
    case $1 in
    link) case $(readlink "$2" 2>/dev/null) in "$home"/*) step "removing $2" rm -f "$2" ;; esac ;;
    file) [ ! -e "$2" ] || step "removing $2" rm -f "$2" ;;
    tree) case $2 in "$home"/*) [ ! -e "$2" ] && [ ! -L "$2" ] || step "removing $2" rm -rf "$2" ;; esac ;;
    esac
}

remove_home() {
    rm -f "$manifest" && rmdir "$home"
}
