# shellcheck shell=sh
# The in-guest reporter as context files of OpenNebula, and the VM templates that lack it. Read by install.sh.
# Promises: an image that is there already is never replaced, only oneadmin's own context files are taken for
# ours, and no template is ever changed.

one_context() {
    images=
    for name in onegate_init.sh onegate_publisher.sh; do
        id=$(one_image "$name" 1) ||
            die 75 "OpenNebula cannot be asked for its images" "is it running? as $owner: oneimage list"
        if [ -n "$id" ]; then
            say "the image $name is there already ($id); to renew it: oneimage delete $id, then run this again"
        else
            step "uploading $name to the datastore $context" one_upload "$name"
            [ "$dry_run" = yes ] || id=$(one_image "$name" 1)
        fi
        [ -z "$id" ] || step "letting VMs of all users use $name: oneimage chmod $id 644" as_owner "$one_bin/oneimage" chmod "$id" 644
        images="$images $id"
    done
    [ "$dry_run" = yes ] || one_tell_templates
    if ! grep -q '^[[:space:]]*ONEGATE_ENDPOINT[[:space:]]*=' "$one_etc/oned.conf"; then
        say "no VM with TOKEN = \"YES\" can be made: set ONEGATE_ENDPOINT in $one_etc/oned.conf, restart opennebula, and run opennebula-gate"
        warned=yes
    fi
}

one_upload() { # NAME: from /var/tmp, one of the few places that a datastore takes files from
    spool=$(mktemp -d /var/tmp/vmpack-context.XXXXXX) && chmod 755 "$spool" &&
        cp "$root/onegate_scripts/$1" "$spool/$1" && chmod 644 "$spool/$1" || return 1
    as_owner "$one_bin/oneimage" create --name "$1" --type CONTEXT --path "$spool/$1" --datastore "$context" || {
        rm -rf "$spool"
        return 1
    }
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do # the datastore copies in the background
        case $(one_image "$1" 2) in 1 | 2) break ;; 5) echo "the datastore could not take it: oneimage show $1" ;; esac
        sleep 0.5
    done
    rm -rf "$spool"
    case $(one_image "$1" 2) in 1 | 2) ;; *) return 1 ;; esac
}

one_image() { # NAME FIELD: 1 its ID, 2 its state; nothing where oneadmin has no such context file
    list=$(as_owner "$one_bin/oneimage" list -x 2>/dev/null | one_xml context-files "$1") || return 1
    printf '%s\n' "$list" | cut -f "$2"
}

one_tell_templates() {
    # shellcheck disable=SC2086 # image ids: they are to be split
    lacking=$(as_owner "$one_bin/onetemplate" list -x | one_xml templates $images) || {
        say "OpenNebula cannot be asked for its VM templates"
        warned=yes
        return 0
    }
    [ -n "$lacking" ] || return 0
    echo "VM templates whose guests report nothing yet, or only those of oneadmin's own VMs:"
    printf '%s\n' "$lacking" | while IFS=$tab read -r id name; do printf '  %s  %s\n' "$id" "$name"; done
    cat <<'END'
To each that shall report add to its CONTEXT, with `onetemplate update ID`:
  CONTEXT = [ TOKEN = "YES", INIT_SCRIPTS = "onegate_init.sh",
    FILES_DS = "$FILE[IMAGE=\"onegate_init.sh\", IMAGE_UNAME=\"oneadmin\"] $FILE[IMAGE=\"onegate_publisher.sh\", IMAGE_UNAME=\"oneadmin\"]" ]
END
}
