# shellcheck shell=sh
# What the actions share that oned has no name for: balloon, pin, live_migrate. Sourced by them.
# Promises: nothing on stdout; a failure is a line "ERROR: action: ..." and one plain last line, as oned's executor
# reads them, and vmpack's own exit code.

action=$(basename -- "$0")
limit_s=60
# shellcheck source=drivers/opennebula/vmm/vmpack/vmpack_program.sh
. "$(dirname -- "$0")/vmpack_program.sh"

fail() { # CODE TEXT
    printf 'ERROR: %s: %s\n%s\n' "$action" "$2" "$2" >&2
    exit "$1"
}

arguments() { # COUNT ARGUMENT...: or the help that is on stdin
    count=$1
    shift
    case ${1-} in -h | --help) cat && exit 0 ;; esac
    [ "$#" -ge "$count" ] || fail 2 "too few arguments; $action --help says which"
    case $1 in '' | -*) fail 2 "no VM is named '$1'" ;; esac
    [ -n "$vmpack" ] || fail 69 "vmpack is not installed on this host"
}

domain_of() { # VM: a number is OpenNebula's
    case $1 in *[!0-9]*) printf '%s' "$1" ;; *) printf 'one-%s' "$1" ;; esac
}

run_vmpack() { # ARGUMENT...: 3 is done with a warning
    case $action in
    live_migrate) set -- "$vmpack" "$@" ;; # takes as long as it takes
    *) set -- timeout -k 2 "$limit_s" "$vmpack" "$@" ;;
    esac
    said=$("$@" 2>&1 </dev/null) && exit 0
    code=$?
    case $code in 124 | 137) fail "$code" "vmpack gave no answer within $limit_s s" ;; esac
    said=$(printf '%s' "$said" | tr '\n' ' ' | sed 's/^vmpack: //; s/  */ /g')
    [ "$code" -ne 3 ] || { printf 'WARN: %s: %s\n' "$action" "$said" >&2 && exit 0; }
    fail "$code" "$said"
}
