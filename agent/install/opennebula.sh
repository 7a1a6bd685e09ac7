# shellcheck shell=sh
# vmpack's drivers on an OpenNebula front-end: putting them beside the stock ones and taking them away. Read by
# install.sh after host.sh.
# Promises: stock files are never changed, links are relative and never dangle, modes and owner are those that
# OpenNebula needs, a second run changes nothing, and what the manifest names is all that uninstall removes.

node=no
enable=no
edit=no
context=
no_sync=no
convert=no
vm_type=
warned=no

one_own_dirs='im/vmpack.d im/vmpack-probes.d etc/im/vmpack-probes.d vmm/vmpack vmpack'
one_categories='host/beacon host/monitor host/system vm/execution vm/monitor vm/snapshot vm/status'

opennebula() {
    umask 022
    layout
    if [ "$node" = yes ]; then
        one_node
        return 0
    fi
    one_layout
    one_look
    one_refuse_broken_links before
    [ "$enable" = no ] || need_systemd "vmpack grant; vmpack vms --sync, every minute as $owner"
    extras=opennebula
    install_program write_front_end_manifest
    one_remotes
    [ "$dry_run" = yes ] || one_refuse_broken_links after
    one_registration
    one_timer
    [ -z "$context" ] || one_context
    [ "$no_sync" = yes ] || one_sync
    [ "$dry_run" = yes ] || one_next_steps
    [ "$warned" = no ] || exit 3
}

# ---- what OpenNebula there is ----

one_layout() {
    case ${ONE_LOCATION:-} in
    '') remotes=/var/lib/one/remotes one_etc=/etc/one one_bin=/usr/bin ;;
    *) remotes=$ONE_LOCATION/var/remotes one_etc=$ONE_LOCATION/etc one_bin=$ONE_LOCATION/bin ;;
    esac
    one_manifest=$home/opennebula
}

one_look() {
    case $remotes in *[!A-Za-z0-9/._+@,:~-]*) die 2 "the path of OpenNebula's remotes holds a space or another odd character: $remotes" "OpenNebula's own scripts cannot work there either" ;; esac
    for needed in im/kvm.d/monitord-client.rb im/kvm-probes.d vmm/kvm VERSION; do
        [ -e "$remotes/$needed" ] || die 69 "no OpenNebula front-end here: $remotes/$needed is missing" \
            "run this on the front-end (5.12 or newer); set ONE_LOCATION where OpenNebula is self-contained; on a node: ./install.sh opennebula --node"
    done
    owner=$(stat -c %U "$remotes")
    am_root || [ "$(id -un)" = "$owner" ] ||
        die 77 "$remotes belongs to $owner" "run this as root or as $owner"
    version=$(head -n 1 "$remotes/VERSION")
    case $version in
    6.8* | 6.10* | 6.99* | 7.*) ;;
    *) say "OpenNebula $version: vmpack is made for 6.8 to 7.4; watch the first host closely" ;;
    esac
}

as_owner() { # COMMAND...: as the user that OpenNebula runs as, who may not look into this folder
    if [ "$(id -un)" = "$owner" ]; then
        "$@"
    else
        (cd / && exec runuser -u "$owner" -- env "HOME=$(getent passwd "$owner" | cut -d : -f 6)" "$@")
    fi
}

one_xml() { "$python" "$root/agent/install/opennebula_xml.py" "$@"; }

one_hosts() { # lines: ID, name, IM_MAD, VM_MAD, granted, marked or -
    list=$(as_owner "$one_bin/onehost" list -x) && printf '%s\n' "$list" | one_xml hosts
}

one_refuse_broken_links() { # before | after
    # shellcheck disable=SC2046 # -path words: they are to be split
    dangling=$(find -L "$remotes" -type l $([ "$1" = after ] || one_not_ours) 2>/dev/null | head -n 10)
    [ -z "$dangling" ] || die 1 "links that lead nowhere are in $remotes, so that no host could be started: $(echo "$dangling" | tr '\n' ' ')" \
        "mend or remove them, then try again"
}

one_not_ours() { # after an upgrade of OpenNebula ours may dangle: they are mended below
    for dir in $one_own_dirs; do printf '! -path %s/%s/* ' "$remotes" "$dir"; done
}

# ---- the files below the remotes ----

one_wanted() { # lines: kind or mode, path below the remotes, target or source
    for dir in $one_own_dirs; do printf 'dir\t%s\t-\n' "$dir"; done
    one_links_to im/kvm.d im/vmpack.d ../kvm.d ''
    one_links_to etc/im/kvm-probes.d etc/im/vmpack-probes.d ../kvm-probes.d ''
    for dir in $(one_probe_dirs | sed 's|/.*||' | sort -u); do printf 'dir\tim/vmpack-probes.d/%s\t-\n' "$dir"; done
    for dir in $(one_probe_dirs); do
        printf 'dir\tim/vmpack-probes.d/%s\t-\n' "$dir"
        one_links_to "im/kvm-probes.d/$dir" "im/vmpack-probes.d/$dir" "../../../kvm-probes.d/$dir" \
            "$root/probes/im/vmpack-probes.d/$dir"
    done
    one_links_to vmm/kvm vmm/vmpack ../kvm "$root/drivers/opennebula/vmm/vmpack"
    one_ours "$root/probes/im" im
    one_ours "$root/probes/lib" vmpack
    one_ours "$root/drivers/opennebula/vmm" vmm
}

one_probe_dirs() { # the seven that the client needs, and what a newer OpenNebula has beside them
    {
        printf '%s\n' $one_categories
        (cd "$remotes/im/kvm-probes.d" && find -L . -mindepth 2 -maxdepth 2 -type d | sed 's|^\./||')
    } | sort -u
}

one_links_to() { # STOCK OURS RELATIVE OWN-SOURCES: a link for each stock file that we have none of our own for
    for file in "$remotes/$1"/*; do
        name=${file##*/}
        [ -e "$file" ] && { [ ! -d "$file" ] || [ "$1" = vmm/kvm ]; } || continue
        case $name in *.rpmnew | *.rpmsave | *.rpmorig | *.dpkg-* | *.orig | *.bak | *~) continue ;; esac
        [ -z "$4" ] || [ ! -e "$4/$name" ] || continue
        # it prints the capacity that our probe prints instead: two would contradict each other
        [ "$1/$name" != im/kvm-probes.d/host/system/linux_host.rb ] || continue
        printf 'link\t%s/%s\t%s/%s\n' "$2" "$name" "$3" "$name"
    done
}

one_ours() { # SOURCE-DIR DIR
    [ -d "$1" ] || die 1 "$1 is missing" "install from a complete checkout of vmpack"
    (cd "$1" && find . -type f ! -name '*.md' ! -name '*.pyc' ! -name '.*' | LC_ALL=C sort) | while read -r file; do
        file=${file#./}
        # what is beside the probes is read by them; OpenNebula runs everything executable that it finds
        if [ "$2" != vmpack ] && [ -x "$1/$file" ]; then mode=755; else mode=644; fi
        printf '%s\t%s/%s\t%s\n' "$mode" "$2" "$file" "$1/$file"
    done
}

one_found() { # what stands there, in the form of the wanted lines and the owner; files with their mode
    for dir in $one_own_dirs; do
        [ ! -d "$remotes/$dir" ] || find "$remotes/$dir" \( -type d -printf "dir\t$dir/%P\t-\t%u\n" \) -o \
            \( -type l -printf "link\t$dir/%P\t%l\t%u\n" \) -o -printf "%m\t$dir/%P\t%u\n"
    done | sed "s|/$tab|$tab|"
}

one_missing() { # of the wanted lines those that are not so yet
    printf '%s\n' "$wanted" | { grep "^[dl]" || :; } | sed "s|\$|$tab$owner|" | { grep -vxF -e "$found" || :; } | cut -f 1-3
    printf '%s\n' "$wanted" | { grep -v "^[dl]" || :; } | while IFS=$tab read -r mode path source; do
        if ! printf '%s\n' "$found" | grep -qxF -e "$mode$tab$path$tab$owner" || ! cmp -s "$source" "$remotes/$path"; then
            printf '%s\t%s\t%s\n' "$mode" "$path" "$source"
        fi
    done
}

one_not_wanted() { # of the paths on standard input those that are not to be there
    grep -vxF -e "$(printf '%s\n' "$wanted" | cut -f 2)" || :
}

one_stale() { # what was installed before and is not wanted any more, and links of ours that lead nowhere
    {
        [ ! -f "$one_manifest" ] || sed -n "s/^at$tab//p" "$one_manifest"
        for dir in $one_own_dirs; do
            [ ! -d "$remotes/$dir" ] || (cd "$remotes" && find -L "$dir" -type l)
        done
    } | sort -u | one_not_wanted | while read -r path; do
        if [ -e "$remotes/$path" ] || [ -L "$remotes/$path" ]; then echo "$path"; fi
    done
}

one_foreign() { # files in our folders that are not ours: they are left alone
    printf '%s\n' "$found" | { grep -v "^dir$tab" || :; } | cut -f 2 | one_not_wanted
}

one_remotes() {
    wanted=$(one_wanted) || exit 1
    found=$(one_found)
    missing=$(one_missing)
    stale=$(one_stale)
    one_tell_remotes
    if [ -n "$missing$stale" ] || [ ! -f "$one_manifest" ]; then
        step "writing down what will be in $remotes" one_write_manifest
        step "putting the drivers into $remotes" one_put
    else
        say "the drivers in $remotes are as they should be"
    fi
    for path in $(one_foreign | { grep -vxF -e "$stale" || :; }); do
        say "left alone, though not ours: $remotes/$path"
    done
}

one_tell_remotes() { # each file, for those who look first
    [ "$dry_run" = yes ] || return 0
    [ -z "$stale" ] || printf '%s\n' "$stale" | sed "s|^|would: remove $remotes/|"
    [ -z "$missing" ] || printf '%s\n' "$missing" | while IFS=$tab read -r kind path what; do
        case $kind in
        dir) echo "would: make the folder $remotes/$path" ;;
        link) echo "would: link $remotes/$path -> $what" ;;
        *) echo "would: copy $remotes/$path (mode 0$kind, owner $owner)" ;;
        esac
    done
}

one_write_manifest() { # what was there before stays named until it is gone
    former=$(sed -n "/^at$tab/p;/^dir$tab/p" "$one_manifest" 2>/dev/null || :)
    {
        printf 'remotes\t%s\netc\t%s\nbin\t%s\nowner\t%s\n' "$remotes" "$one_etc" "$one_bin" "$owner"
        {
            [ -z "$former" ] || printf '%s\n' "$former"
            printf '%s\n' "$wanted" | while IFS=$tab read -r kind path what; do
                case $kind in dir) printf 'dir\t%s\n' "$path" ;; *) printf 'at\t%s\n' "$path" ;; esac
            done
        } | LC_ALL=C sort -u
    } >"$one_manifest.new" && mv "$one_manifest.new" "$one_manifest"
}

one_put() {
    group=$(stat -c %G "$remotes")
    if am_root; then give=chown; else give=:; fi
    printf '%s\n' "$missing" | while IFS=$tab read -r kind path what; do
        at=$remotes/$path
        case $kind in
        '') continue ;;
        dir) mkdir -p "$at" && chmod 755 "$at" ;;
        link) one_link "$what" "$at" ;;
        # from beside the probes, where an unfinished file is not run
        *) cp "$what" "$remotes/vmpack/.new" && chmod "$kind" "$remotes/vmpack/.new" && mv -fT "$remotes/vmpack/.new" "$at" ;;
        esac && $give -h "$owner:$group" "$at" || exit 1
    done || return 1
    for path in $stale; do rm -f "$remotes/$path" || return 1; done
}

one_link() { # TARGET LINK: never absent in between
    ln -sfn "$1" "$2.vmpack-new" && mv -fT "$2.vmpack-new" "$2"
}

write_front_end_manifest() { note_files "$units_in/vmpack-grant.service" "$units_in/vmpack-grant.timer"; }

one_timer() {
    step "writing vmpack-grant.service and vmpack-grant.timer to $units_in" put_units vmpack-grant.service vmpack-grant.timer
    ! has_systemd || step "telling systemd" systemctl daemon-reload
    [ "$enable" = no ] || step "granting every minute, now and after each boot" systemctl enable --now vmpack-grant.timer
}

one_stop_timer() {
    has_systemd && systemctl is-enabled --quiet vmpack-grant.timer 2>/dev/null || return 0
    step "ending the grants of every minute" systemctl disable --now vmpack-grant.timer
    step "waiting for the last of them" systemctl stop vmpack-grant.service
}

# ---- and then ----

one_sync() {
    if try "copying the remotes to all hosts: onehost sync -f (as $owner)" as_owner "$one_bin/onehost" sync -f; then
        return 0
    fi
    tail -n "+$log_start" "$log" | tail -n 5 >&2
    say "the hosts have not got the new files yet: once OpenNebula runs, as $owner: onehost sync -f"
    warned=yes
}

one_next_steps() {
    echo "Installed: $("$program" --version), its drivers in $remotes. Next:"
    one_registration_steps
    next "on each node: ./install.sh opennebula --node --enable" "the agent there, and $owner's right to speak to it"
    next "onehost create HOST -i vmpack -v vmpack" "a new host; -v kvm keeps Sunstone's buttons for VMs (see README)"
    next "vmpack opennebula convert HOST --dry-run" "a host that has VMs already (as $owner)"
    next "vmpack hosts" "what is packed where (as $owner); then: vmpack grant --dry-run"
    [ "$enable" = yes ] || next "systemctl enable --now vmpack-grant.timer" "vmpack grant and vmpack vms --sync every minute; or run this again with --enable"
}
