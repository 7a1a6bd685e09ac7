# shellcheck shell=sh
# What vmpack's VMM actions share. Sourced by them; the stock actions lie in ../kvm.
# Promises: the stock action gets its arguments and its input byte for byte; what it prints and its exit code are
# those of the action; whatever becomes of vmpack costs two time limits and one WARN line at most. No text is printed
# by echo: an owner's backslashes would become lines of their own, and oned would read those.

here=$(dirname -- "$0")
action=$(basename -- "$0")
stock=$here/../kvm/$action
hook=$action
file=
limit_s=20
renew_s=10
answer=
warned=
loss=
case $action in
resize | restore | snapshot_revert)
    # shellcheck disable=SC2016 # a command to be read
    loss='; what its owner pays for may not be noted: `vmpack vms --sync` on the front-end does that'
    ;;
esac

warn() { # TEXT: one line for the VM's log, however often it is called
    [ -n "$warned" ] || printf 'WARN: vmpack: %s: %s\n' "$action" "$1" >&2
    warned=yes
}

# oned appends the VM's id and the host's name to the arguments of every action
vmid='' last=''
for argument; do vmid=$last last=$argument; done
case $vmid in '' | *[!0-9]*) exec "$stock" "$@" ;; esac
[ ! -t 0 ] || exec "$stock" "$@"

if [ "$action" != migrate_local ]; then # that one asks over ssh
    # shellcheck source=drivers/opennebula/vmm/vmpack/vmpack_program.sh
    . "$here/vmpack_program.sh"
    if [ -z "$vmpack" ]; then
        warn "vmpack is not installed on this host, or is not where it is looked for: /opt/vmpack, /usr/local/bin, /usr/bin"
        exec "$stock" "$@"
    fi
fi
input=$(cat && printf .)
input=${input%.}

vmpack_before() { # $answer is what vmpack says, empty where it cannot
    ask before "--file=$file"
}

vmpack_meanwhile() { # until the action's own job holds the VM, which can be long after the stock action began
    trap 'kill "$!" 2>/dev/null; exit 0' TERM
    while kill -0 "$$"; do
        sleep "$renew_s" &
        wait "$!"
        run_vmpack one-hook "$hook" meanwhile -- "$vmid" &
        wait "$!" || break
    done </dev/null >/dev/null 2>&1
}

vmpack_after() { # with what was said before
    ask after "--code=$code" "--token=$answer"
}

run_stock() { # ARGUMENT...: sets $code
    feed | "$stock" "$@"
    code=$?
}

run_stock_held() { # ARGUMENT...: the same, with the hold that vmpack_before began kept up
    keeper=
    [ -z "$answer" ] || { vmpack_meanwhile & keeper=$!; }
    run_stock "$@"
    [ -z "$keeper" ] || { kill "$keeper" && wait "$keeper"; } 2>/dev/null
}

ask() { # before | after, OPTION...: what vmpack prints is a warning or an empty line, then its answer
    answer=$(
        feed | run_vmpack one-hook "$hook" "$@" -- "$vmid" 2>/dev/null
        failed=$?
        printf .
        exit "$failed"
    )
    case $? in
    0) ;;
    124 | 137) answer= && warn "vmpack gave no answer within $limit_s s$loss" ;;
    *) answer= && warn "vmpack failed; \`vmpack doctor\` on the host may say why$loss" ;;
    esac
    [ -n "$answer" ] || return 0
    answer=${answer%.}
    warning=${answer%%"
"*}
    answer=${answer#*"
"}
    [ -z "$warning" ] || warn "$warning"
}

run_vmpack() { # ARGUMENT...
    timeout -k 2 "$limit_s" "$vmpack" "$@"
}

feed() { # a reader that ends early is no fault
    printf '%s' "$input" 2>/dev/null
}
