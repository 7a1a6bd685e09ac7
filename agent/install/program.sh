# shellcheck shell=sh
# The program itself on this machine, without a service: where it goes, its releases, its links. Read by install.sh.
# Promises: a new version replaces the old in one rename, and a configuration is never overwritten.

prefix=
tab=$(printf '\t')
nvidia_driver=/proc/driver/nvidia
extras= # of setup.cfg, comma separated; what was installed with them once stays with them

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
    one_access=$etc/conf.d/50-opennebula.toml
    program=$home/current/bin/vmpack
    if [ -z "$prefix" ] && [ "$dry_run" = no ] && ! am_root; then
        die 77 "changing the whole host needs root" "run it with sudo, or below a folder of yours: --prefix \"\$HOME/.local\""
    fi
}

programs="vmpack memory_coordinator vcpu_scheduler"

links_are_there() { for name in $programs; do [ -e "$bin/$name" ] || return 1; done; }

has_systemd() { [ -z "$prefix" ] && [ -d /run/systemd/system ]; }

install_program() { # MANIFEST-WRITER: packages, release, links, default configuration
    need_packages agent
    for name in $programs; do
        if [ -e "$bin/$name" ] && [ "$(readlink "$bin/$name")" != "$home/current/bin/$name" ]; then
            die 1 "$bin/$name is there already and is not ours" "move it away, or use --prefix"
        fi
    done
    had_extras=$(sed -n 's/^extras\t//p' "$manifest" 2>/dev/null || :)
    [ -n "$extras" ] || extras=$had_extras
    add_gpu_extra
    release=$home/releases/$(source_identity)
    previous=$(readlink "$home/current" 2>/dev/null || :)
    step "writing down what will be installed in $manifest" "$1"
    [ -e "$release/.complete" ] || step "installing the program in $release" install_release
    [ "$previous" = "$release" ] && links_are_there || step "linking $programs in $bin to it" point_links
    [ -e "$etc/vmpack.toml" ] || step "writing the default configuration to $etc/vmpack.toml" write_default_config
}

add_gpu_extra() { # where NVIDIA's driver is, GPUs are read
    [ ! -e "$nvidia_driver" ] || case ,$extras, in *,gpu,*) ;; *) extras=${extras:+$extras,}gpu ;; esac
}

source_identity() {
    (
        cd "$root"
        "$python" -V
        [ -z "$extras" ] || echo "$extras"
        find agent setup.cfg pyproject.toml -type f ! -path '*/__pycache__/*' ! -path '*.egg-info/*' -exec cksum {} + |
            LC_ALL=C sort
    ) 2>/dev/null | cksum | cut -d ' ' -f 1
}

# The functions below run as steps, where `set -e` does not hold: hence each command's own && or || return.

note_files() { # FILE...: the manifest: kind, tab, path; uninstall removes these and nothing else
    former=$(sed -n "/^file$tab/p;/^folder$tab/p" "$manifest" 2>/dev/null || :)
    mkdir -p "$home" "$bin" "$etc" "$units_in" && {
        { [ -z "$former" ] || printf '%s\n' "$former"; printf "file$tab%s\n" "$@"; } | LC_ALL=C sort -u
        program_lines
    } >"$manifest"
}

put_units() { # UNIT...
    for unit in "$@"; do
        sed -e "s|@VMPACK@|$bin/vmpack|g" -e "s|@CONFIG@|$etc/vmpack.toml|g" -e "s|@OPTIONS@|$options|g" \
            -e "s|@OWNER@|${owner:-root}|g" "$root/agent/vmpack/data/systemd/$unit" >"$units_in/$unit" || return 1
    done
}

program_lines() {
    for name in $programs; do printf 'link\t%s\n' "$bin/$name" || return 1; done &&
        printf 'tree\t%s\n' "$home/releases" "$home/current" &&
        { [ -z "$extras" ] || printf 'extras\t%s\n' "$extras"; }
}

install_release() {
    rm -rf "$release" &&
        "$python" -m venv --system-site-packages "$release" &&
        mkdir "$release/source" &&
        # pip builds in the folder it is given: a copy keeps the checkout clean, and a stale build out
        (cd "$root" && cp -R agent setup.cfg pyproject.toml README.md LICENSE "$release/source/") &&
        "$release/bin/python" -m pip install --disable-pip-version-check "$release/source${extras:+[$extras]}" &&
        rm -rf "$release/source" &&
        "$release/bin/vmpack" --version &&
        touch "$release/.complete"
}

point_links() { # the release before this one stays, for a program that still runs from it
    ln -sfn "$release" "$home/current.new" && mv -fT "$home/current.new" "$home/current" || return 1
    for name in $programs; do
        ln -sfn "$home/current/bin/$name" "$bin/$name" || return 1
    done
    for old in "$home"/releases/*; do
        [ "$old" = "$release" ] || [ "$old" = "$previous" ] || rm -rf "$old"
    done
}

write_default_config() {
    "$program" check-config --default >"$etc/vmpack.toml.new" && mv "$etc/vmpack.toml.new" "$etc/vmpack.toml"
}

next() { printf '  %s\n      %s\n' "$1" "$2"; }

remove() { # KIND PATH
    case $1 in
    link) case $(readlink "$2" 2>/dev/null) in "$home"/*) step "removing $2" rm -f "$2" ;; esac ;;
    file) [ ! -e "$2" ] || step "removing $2" rm -f "$2" ;;
    folder) [ ! -d "$2" ] || step "removing $2, if nothing is in it" rmdir --ignore-fail-on-non-empty "$2" ;;
    tree) case $2 in "$home"/*) [ ! -e "$2" ] && [ ! -L "$2" ] || step "removing $2" rm -rf "$2" ;; esac ;;
    esac
}

remove_home() {
    rm -f "$manifest" && rmdir "$home"
}
