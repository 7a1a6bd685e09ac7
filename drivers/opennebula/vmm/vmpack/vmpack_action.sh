# shellcheck shell=sh
# What vmpack's VMM actions share. Sourced by them; the stock actions lie in ../kvm.
# Promises: the stock action gets its arguments and its input byte for byte; what it prints and its exit code are
# those of the action; whatever becomes of vmpack costs two time limits and one WARN line at most.

here=$(dirname -- "$0")
action=$(basename -- "$0")
stock=$here/../kvm/$action
hook=$action
file=
limit_s=20
answer=
warned=

# shellcheck source=drivers/opennebula/vmm/vmpack/vmpack_program.sh
. "$here/vmpack_program.sh"

# oned appends the VM's id and the host's name to the arguments of every action
vmid='' last=''
for argument; do vmid=$last last=$argument; done
case $vmid in '' | *[!0-9]*) vmpack= ;; esac

if [ -z "$vmpack" ] || [ -t 0 ]; then
    exec "$stock" "$@"
fi
input=$(cat && printf .)
input=${input%.}

warn() { # TEXT: one line for the VM's log, however often it is called
    [ -n "$warned" ] || echo "WARN: vmpack: $action: $1" >&2
    warned=yes
}

vmpack_before() { # $answer is what vmpack says, empty where it cannot
    ask before "--file=$file"
}

vmpack_after() { # with what was said before
    ask after "--code=$code" "--token=$answer"
}

run_stock() { # ARGUMENT...: sets $code
    feed | "$stock" "$@"
    code=$?
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
    124 | 137) answer= && warn "vmpack gave no answer within $limit_s s" ;;
    *) answer= && warn "vmpack failed; \`vmpack doctor\` on the host may say why" ;;
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
