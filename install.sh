#!/bin/sh
# Gets vmpack running from a checkout, in one command. Run by newcomers, administrators and CI.
# It may be run again at any time: what is done already is left alone. Progress goes to stderr, one line a step.
set -eu

usage() {
    cat <<'END'
vmpack finds the memory that this host has already paid for. This script gets it running.

  ./install.sh demo [OPTIONS]       see it work: boots small real guests, packs them, gives all back
  ./install.sh test [--all] [ARGS]  run the checks and tests (--all: the long ones too; ARGS go to pytest alone)
  ./install.sh dev                  everything for working on vmpack, in ./.venv
  ./install.sh agent                install the agent on this host; nothing is started or enabled
  ./install.sh opennebula           on a front-end: the drivers beside OpenNebula's own, and the program
  ./install.sh opennebula --node    on a node: the agent, and oneadmin's right to speak to it
  ./install.sh uninstall            give all memory and grants back, then remove what was installed here

Options
  --dry-run       say each step, change nothing
  --prefix DIR    (agent, opennebula, uninstall) below DIR and not in /opt/vmpack, /usr/bin and /etc/vmpack
  --edit          (opennebula) put the drivers' lines into OpenNebula's configuration, each file copied first
  --type TYPE     (opennebula) kvm, or qemu for nodes without KVM (default: as the hosts that are there)
  --context       (opennebula) upload the in-guest reporter to the datastore `files`; --context=NAME: another
  --no-sync       (opennebula, uninstall) leave out `onehost sync`
  --enable        (opennebula) start the timer that grants every minute; with --node: the agent
  --convert       (uninstall) give hosts back to OpenNebula's own drivers first, instead of refusing
  --purge         (uninstall) remove configuration, state and history too
  --keep-packed   (uninstall) go on even where memory or grants cannot be given back
  --help          this text

Examples
  ./install.sh demo --guests 2 --json result.json
  ./install.sh test tests/unit -k memory
  sudo ./install.sh agent --dry-run
  ./install.sh agent --prefix "$HOME/.local"
  sudo ./install.sh opennebula --edit --dry-run

demo, test and dev write only to this folder and to caches; they install distribution packages where some are
missing (as root, or through sudo) and start no service. Debian 12 and Ubuntu 24.04 or newer: by themselves.
Elsewhere: the exact command is printed. Python packages come from the index that pip is configured for.
END
}

root=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
os_release=${VMPACK_OS_RELEASE:-/etc/os-release} # another file: only for the tests
venv=$root/.venv
dry_run=no
log=
guard=

say() { printf 'vmpack: %s\n' "$*" >&2; }

die() { # CODE MESSAGE [HINT]
    say "$2"
    [ $# -lt 3 ] || printf '  %s\n' "$3" >&2
    exit "$1"
}

clean_up() {
    [ -z "$guard" ] || as_root rm -f "$guard"
    [ -z "$log" ] || rm -f "$log"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

am_root() { [ "$(id -u)" -eq 0 ]; }
as_root() { if am_root; then "$@"; else sudo "$@"; fi; }

# try TEXT COMMAND...: one step. Its output goes to the log; under --dry-run it is only said.
try() {
    try_text=$1
    shift
    if [ "$dry_run" = yes ]; then
        if [ "$1" = as_root ]; then
            shift
            am_root || try_text="$try_text (through sudo)"
        fi
        case $(command -v "$1") in /*) try_text="$try_text: $*" ;; esac # our own functions say nothing to a reader
        printf 'would: %s\n' "$try_text"
        return 0
    fi
    say "$try_text"
    [ -n "$log" ] || log=$(mktemp "${TMPDIR:-/tmp}/vmpack-install.XXXXXX")
    log_start=$(($(wc -l <"$log") + 1))
    printf '\n$ %s\n' "$*" >>"$log"
    "$@" >>"$log" 2>&1 </dev/null
}

# step TEXT COMMAND...: a step that must succeed; else the end of the log is shown and kept.
step() {
    try "$@" && return 0
    tail -n "+$log_start" "$log" | tail -n 40 >&2
    kept=$log
    log=
    die 1 "failed: $1" "the whole output is in $kept"
}

# shellcheck source=agent/install/packages.sh
. "$root/agent/install/packages.sh"
# shellcheck source=agent/install/environment.sh
. "$root/agent/install/environment.sh"
# shellcheck source=agent/install/program.sh
. "$root/agent/install/program.sh"
# shellcheck source=agent/install/host.sh
. "$root/agent/install/host.sh"
# shellcheck source=agent/install/opennebula.sh
. "$root/agent/install/opennebula.sh"
# shellcheck source=agent/install/opennebula_conf.sh
. "$root/agent/install/opennebula_conf.sh"
# shellcheck source=agent/install/opennebula_context.sh
. "$root/agent/install/opennebula_context.sh"
# shellcheck source=agent/install/opennebula_node.sh
. "$root/agent/install/opennebula_node.sh"
# shellcheck source=agent/install/opennebula_uninstall.sh
. "$root/agent/install/opennebula_uninstall.sh"

run() { # COMMAND...: gives this process over to it
    if [ "$dry_run" = yes ]; then
        printf 'would: run: %s\n' "$*"
        exit 0
    fi
    clean_up
    exec "$@"
}

demo() {
    need_packages demo
    need_venv core
    run "$venv/bin/vmpack" demo "$@"
}

dev() {
    need_packages test
    need_venv test
    echo "Ready. Try: .venv/bin/vmpack --help, ./install.sh test tests/unit"
}

test_all=no
run_tests() {
    need_packages test
    need_venv test
    cd "$root"
    if [ $# -eq 0 ]; then
        # shellcheck disable=SC2046 # our own scripts: no spaces in their names
        step "checking: shellcheck" shellcheck -x install.sh $(grep -rlE '^#! ?(/usr)?/bin/(env )?(ba)?sh' .ci agent probes drivers onegate_scripts --exclude-dir=__pycache__)
        step "checking: ruff" "$venv/bin/ruff" check .
        step "checking: mypy" "$venv/bin/mypy"
        step "checking: the import rule" "$venv/bin/lint-imports" --config setup.cfg
    fi
    [ "$test_all" = yes ] || set -- -m 'not long' "$@"
    run "$venv/bin/python" -m pytest "$@"
}

# ---- which of these ----

command=
while [ $# -gt 0 ]; do
    case $1 in
    -h | --help) usage && exit 0 ;;
    --dry-run) dry_run=yes ;;
    demo | test | dev | agent | opennebula | uninstall) command=$1 && shift && break ;;
    *) die 2 "unknown: $1" "./install.sh --help lists what there is" ;;
    esac
    shift
done
[ -n "$command" ] || {
    usage >&2
    exit 2
}

# the script's own options may stand anywhere; the rest, in its order, is for the program
takes=
for argument in "$@"; do
    shift
    case $takes in
    prefix) prefix=$argument takes= && continue ;;
    type) vm_type=$argument takes= && continue ;;
    esac
    case $command:$argument in
    *:-h | *:--help) usage && exit 0 ;;
    *:--dry-run) dry_run=yes ;;
    test:--all) test_all=yes ;;
    agent:--prefix=* | opennebula:--prefix=* | uninstall:--prefix=*) prefix=${argument#--prefix=} ;;
    agent:--prefix | opennebula:--prefix | uninstall:--prefix) takes=prefix ;;
    opennebula:--node) node=yes ;;
    opennebula:--enable) enable=yes ;;
    opennebula:--edit) edit=yes ;;
    opennebula:--type=*) vm_type=${argument#--type=} ;;
    opennebula:--type) takes='type' ;;
    opennebula:--context) context=files ;;
    opennebula:--context=?*) context=${argument#--context=} ;;
    opennebula:--no-sync | uninstall:--no-sync) no_sync=yes ;;
    uninstall:--convert) convert=yes ;;
    uninstall:--purge) purge=yes ;;
    uninstall:--keep-packed) keep_packed=yes ;;
    demo:* | test:*) set -- "$@" "$argument" ;;
    *) die 2 "$command does not know $argument" "./install.sh --help lists the options" ;;
    esac
done
case $takes in
prefix) die 2 "--prefix needs a folder" ;;
type) die 2 "--type needs kvm or qemu" ;;
esac
case $vm_type in '' | kvm | qemu) ;; *) die 2 "there is no type $vm_type" "kvm, or qemu for nodes without KVM" ;; esac
case $node:$enable:$edit:$context:$vm_type in
no:* | yes:*:no::) ;;
*) die 2 "those options do not go together" "--edit, --type and --context are for the front-end" ;;
esac

case $command in
demo) demo "$@" ;;
test) run_tests "$@" ;;
dev) dev ;;
agent) agent ;;
opennebula) opennebula ;;
uninstall) uninstall ;;
esac
