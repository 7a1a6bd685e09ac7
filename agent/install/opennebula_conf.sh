# shellcheck shell=sh
# Telling OpenNebula of the drivers: blocks in monitord.conf, oned.conf and vmm_execrc. Read by install.sh.
# Promises: without --edit the lines are only shown; with it a file is copied aside first, keeps owner and mode,
# and gets exactly one block between two marks, which uninstall takes out again.

mark_begin='# >>> vmpack, kept by install.sh opennebula' # plain words: both are sought with sed
mark_end='# <<< vmpack'
changed_conf=

one_registration() {
    one_choose_type
    one_block monitord.conf
    one_block oned.conf
    one_block vmm_exec/vmm_execrc
}

one_choose_type() { # what stands there stays; else what the other hosts run; else kvm
    [ -z "$vm_type" ] || return 0
    if [ -r "$one_etc/oned.conf" ]; then
        vm_type=$(one_present "$one_etc/oned.conf" | sed -n 's/^ *TYPE *= *"\([a-z]*\)".*/\1/p')
    fi
    [ -z "$vm_type" ] || return 0
    vm_type=kvm
    drivers=$(one_hosts 2>/dev/null | cut -f 4)
    if printf '%s\n' "$drivers" | grep -qx qemu && ! printf '%s\n' "$drivers" | grep -qx kvm; then
        vm_type=qemu
        say "the hosts run VMs without KVM (driver qemu), so ours shall too; --type kvm says otherwise"
    fi
}

one_snippet() { # FILE
    sed "s/^\( *TYPE *= *\)\"[a-z]*\"/\1\"$vm_type\"/" "$root/drivers/opennebula/conf/${1##*/}"
}

one_present() { # FILE: our block in it, without the marks
    sed -n "/^$mark_begin/,/^$mark_end/{/^$mark_begin/d;/^$mark_end/d;p;}" "$1"
}

one_marks_pair() { # FILE
    begins=$(grep -c "^$mark_begin" "$1" || :)
    ends=$(grep -c "^$mark_end" "$1" || :)
    [ "$begins$ends" = 00 ] || [ "$begins$ends" = 11 ]
}

one_block() { # FILE below the configuration directory
    file=$one_etc/$1
    snippet=$(one_snippet "$1") || exit 1
    if [ ! -r "$file" ]; then
        die 77 "$file cannot be read" "run this as root, or as who may read it"
    elif ! one_marks_pair "$file"; then
        die 78 "the marks of vmpack's lines in $file do not pair" "put '$mark_begin' before and '$mark_end' after them, or remove both and the lines between"
    elif [ "$(one_present "$file")" = "$snippet" ]; then
        say "$file has vmpack's lines"
    elif one_by_hand "$file" "$1"; then
        say "$file names vmpack outside the marks: left as it is"
    elif [ "$edit" = yes ]; then
        step "keeping $file as $file.$(one_stamp), then adding vmpack's lines to it" one_edit "$file" "$snippet"
        changed_conf=yes
    else
        printf '\n# to add to %s (or let --edit do it):\n%s\n' "$file" "$snippet"
        changed_conf=asked
    fi
}

one_by_hand() { # FILE NAME: an administrator registered the drivers without us
    one_without_block "$1" | case $2 in
    */vmm_execrc) grep -q '^[^#]*vmpack-' ;;
    *) grep -q '^[^#]*NAME *= *"\{0,1\}vmpack"\{0,1\} *,\{0,1\} *\(#.*\)\{0,1\}$' ;;
    esac
}

one_without_block() { sed "/^$mark_begin/,/^$mark_end/d" "$1"; }

one_stamp() { echo "before-vmpack-${one_began:=$(date +%Y%m%dT%H%M%S)}"; }

one_edit() { # FILE SNIPPET
    real=$(readlink -f "$1") && kept=$1.$(one_stamp) && cp -p "$real" "$kept" && cp -p "$real" "$real.new" && {
        one_without_block "$kept"
        [ -z "$(tail -c 1 "$kept")" ] || echo
        printf '%s\n%s\n%s\n' "$mark_begin" "$2" "$mark_end"
    } >"$real.new" && mv -fT "$real.new" "$real"
}

one_take_out() { # FILE: and the copies that say nothing more than it then does
    real=$(readlink -f "$1") && cp -p "$real" "$real.new" && one_without_block "$real" >"$real.new" && mv -fT "$real.new" "$real" &&
        for kept in "$1".before-vmpack-*; do
            one_is_but_newline "$kept" "$real" && { cp -p "$kept" "$real.new" && mv -fT "$real.new" "$real" || return 1; }
            ! cmp -s "$kept" "$real" || rm -f "$kept" || return 1
        done
}

one_is_but_newline() { # KEPT FILE: they differ in the last newline alone, which one_edit gave it
    [ -n "$(tail -c 1 "$1")" ] && { cat "$1" && echo; } | cmp -s - "$2"
}

one_unregister() { # every file that has our block
    for name in monitord.conf oned.conf vmm_exec/vmm_execrc; do
        file=$one_etc/$name
        [ -r "$file" ] && grep -q "^$mark_begin" "$file" || continue
        one_marks_pair "$file" || die 78 "the marks of vmpack's lines in $file do not pair" "remove them and the lines between by hand, then try again"
        step "taking vmpack's lines out of $file" one_take_out "$file"
        changed_conf=yes
    done
}

one_registration_steps() {
    case $changed_conf in
    yes) next "systemctl restart opennebula" "it reads its configuration only then; VMs go on meanwhile" ;;
    asked) next "put the lines above into $one_etc, then: systemctl restart opennebula" "or run this again with --edit" ;;
    esac
}
