#!/bin/sh
# Installs vmpack's reporter (onegate_publisher.sh) in a VM as a service, and removes it again.
# Run by OpenNebula's context packages as INIT_SCRIPTS or START_SCRIPT at every boot and after every change of the
# context, or by hand as root. Promises: it may run again at any time and leaves one reporter with the newest
# context; it waits for nothing that could hold up the boot; `uninstall` leaves nothing behind.
set -u

usage() {
    cat << 'END'
Puts vmpack's reporter into this VM: it tells the cloud, through OneGate, how the VM uses its memory.

  onegate_init.sh              install it, or renew it, and start it (as root)
  onegate_init.sh status       does it run, and what does it say?
  onegate_init.sh uninstall    stop it and remove everything

Options
  --dry-run    say each step, change nothing
  --root DIR   work below DIR and not below /

In an OpenNebula VM template, with both scripts uploaded as files (the names must stay):

  CONTEXT = [ TOKEN = "YES", NETWORK = "YES",
    FILES_DS = "$FILE[IMAGE=\"onegate_init.sh\"] $FILE[IMAGE=\"onegate_publisher.sh\"]",
    INIT_SCRIPTS = "onegate_init.sh",
    VMPACK_REPORT_INTERVAL = "60" ]

It becomes a systemd unit or an OpenRC service named vmpack-onegate; where there is neither, a plain process that the
next boot's context starts again. As long as the template lists it, the next boot brings it back after `uninstall`.
END
}

say() { printf 'vmpack-onegate: %s\n' "$1" >&2; }

die() { # CODE MESSAGE HINT
    say "$2"
    printf '  %s\n' "$3" >&2
    exit "$1"
}

command=install
root=
dry_run=no
while [ $# -gt 0 ]; do
    case $1 in
    -h | --help) usage && exit 0 ;;
    --dry-run) dry_run=yes ;;
    --root)
        [ $# -gt 1 ] || die 2 "--root needs a folder" "--help lists what there is"
        root=${2%/}
        shift
        ;;
    install | uninstall | status) command=$1 ;;
    *) die 2 "unknown: $1" "--help lists what there is" ;;
    esac
    shift
done

# one-context runs this with the token in no variable, but with the owner's; the service gets none of them
PATH=${PATH:-/usr/local/bin}:/usr/bin:/bin:/usr/sbin:/sbin
export PATH LC_ALL=C

name=vmpack-onegate
program_name=$name-publisher
run=$root/run/vmpack
kept=$run/reporter.env
pid_file=$run/reporter.pid
systemd_unit=etc/systemd/system/$name.service
runtime_unit=run/systemd/system/$name.service # where /etc is read-only: init runs at every boot
openrc_script=etc/init.d/$name
program_folders="usr/local/sbin var/lib/vmpack run/vmpack" # the first that can be written

# What lies in any other folder where root happens to be is not the context's.
context_folder=${MOUNT_DIR:-}
if [ -z "$context_folder" ]; then
    case $(pwd -P)/ in
    /run/one-context/* | /var/run/one-context/*) context_folder=. ;;
    *) context_folder=$root/mnt ;;
    esac
fi

# ---- steps ----

try() { # COMMAND...: one step that changes something
    if [ "$dry_run" = yes ]; then
        printf 'would: %s\n' "$*"
    else
        "$@"
    fi
}

put() { # FILE MODE: writes stdin there, in one stroke; false where that is not possible
    if [ "$dry_run" = yes ]; then
        cat > /dev/null
        printf 'would: write %s\n' "$1"
        return
    fi
    folder=${1%/*}
    { mkdir -p "$folder" && (umask 077 && cat > "$1.new") && chmod "$2" "$1.new" && mv -f "$1.new" "$1"; } 2> /dev/null && return
    rm -f "$1.new" 2> /dev/null
    return 1
}

manager() {
    if [ -d "$root/run/systemd/system" ] && command -v systemctl > /dev/null; then
        echo systemd
    elif [ -d "$root/run/openrc" ] && command -v rc-service > /dev/null; then
        echo openrc
    else
        echo plain
    fi
}

# ---- the program ----

find_publisher() { # sets source: this script may run as a copy, in the folder of the context
    for folder in "$(dirname -- "$0")" "$context_folder" "$root/mnt"; do
        source=$folder/onegate_publisher.sh
        [ -f "$source" ] && return
    done
    return 1
}

installed_program() { # prints where it lies
    for folder in $program_folders; do
        [ -f "$root/$folder/$program_name" ] && echo "$root/$folder/$program_name" && return
    done
    return 1
}

install_program() { # sets program
    find_publisher || die 66 "onegate_publisher.sh is not beside this script" \
        "add its image to FILES_DS in the VM template's CONTEXT, with this very name"
    for folder in $program_folders; do
        program=$root/$folder/$program_name
        put "$program" 755 < "$source" || continue
        remove_programs "$program"
        return
    done
    die 73 "the reporter cannot be copied to any of: $program_folders" "run this as root"
}

remove_programs() { # KEPT: all copies but this
    for folder in $program_folders; do
        file=$root/$folder/$program_name
        if [ "$file" != "$1" ] && [ -f "$file" ]; then
            try rm -f "$file"
            [ "$folder" = usr/local/sbin ] || try rmdir "$root/$folder" 2> /dev/null
        fi
    done
}

# Very old context packages have no one_env and unmount the token: keep what the reporter needs.
keep_old_context() {
    if [ -f "$root/var/run/one-context/one_env" ]; then
        [ ! -f "$kept" ] || try rm -f "$kept"
        return
    fi
    for folder in "$context_folder" "$root/mnt"; do
        if [ ! -f "$folder/context.sh" ] || [ ! -f "$folder/token.txt" ]; then continue; fi
        {
            read -r token < "$folder/token.txt"
            echo "TOKENTXT=$token" # built in: no command line shows it
            grep -E '^(export )?(VMID|ONEGATE_ENDPOINT|VMPACK_REPORT_INTERVAL)=' "$folder/context.sh"
        } | put "$kept" 400 || die 73 "$kept cannot be written" "run this as root"
        return
    done
    say "no context found: the reporter waits for /var/run/one-context/one_env"
}

# ---- the service ----

unit_text() {
    cat << END
[Unit]
Description=vmpack reporter: tells the cloud how this VM uses its memory
StartLimitIntervalSec=0

[Service]
ExecStart=/bin/sh $program
Restart=on-failure
RestartSec=30
RestartPreventExitStatus=69
Nice=5
NoNewPrivileges=yes
ProtectSystem=full
ProtectHome=yes

[Install]
WantedBy=multi-user.target
END
}

openrc_text() {
    cat << END
#!/sbin/openrc-run
description="vmpack reporter: tells the cloud how this VM uses its memory"
command=/bin/sh
command_args="$program"
command_background=yes
pidfile=/run/$name.pid
END
}

start_systemd() { # --no-block: this may run inside a unit that the boot waits for
    if unit_text | put "$root/$systemd_unit" 644; then
        try systemctl daemon-reload && try systemctl enable --quiet "$name.service"
    elif unit_text | put "$root/$runtime_unit" 644; then
        try systemctl daemon-reload
    else
        die 73 "no place for a systemd unit can be written" "run this as root"
    fi
    try systemctl --no-block restart "$name.service"
}

start_openrc() {
    if openrc_text | put "$root/$openrc_script" 755; then
        try rc-update --quiet add "$name" default
        try rc-service --quiet "$name" restart
    else
        start_plain
    fi
}

start_plain() { # in no folder that is to be unmounted, with nothing of the owner's environment
    stop_plain
    set -- env -i "PATH=$PATH" /bin/sh "$program"
    [ -z "$root" ] || set -- "$@" --root "$root"
    command -v setsid > /dev/null && set -- setsid "$@"
    if [ "$dry_run" = yes ]; then
        printf 'would: start in the background: %s\n' "$*"
    else
        (cd / && exec "$@") < /dev/null > /dev/null 2>&1 &
    fi
}

running_pid() { # prints it; false where no reporter runs
    pid=
    read -r pid 2> /dev/null < "$pid_file"
    case $pid in '' | *[!0-9]*) return 1 ;; esac
    words=
    IFS= read -r words 2> /dev/null < "/proc/$pid/cmdline"
    case $words in *onegate?publisher*) echo "$pid" ;; *) return 1 ;; esac
}

stop_plain() { # it ends at once; after 10 s it is killed
    pid=$(running_pid) || return 0
    try kill "$pid"
    [ "$dry_run" = no ] || return 0
    tries=0
    while running_pid > /dev/null; do
        [ "$tries" -lt 10 ] || { kill -9 "$pid" && break; }
        tries=$((tries + 1))
        sleep 1
    done
}

# ---- commands ----

install() {
    command -v curl > /dev/null || die 69 "curl is missing" "install the package curl in the VM's image"
    install_program
    keep_old_context
    kind=$(manager)
    "start_$kind"
    [ "$dry_run" = yes ] || say "installed as $program ($kind)"
}

uninstall() {
    if [ -f "$root/$systemd_unit" ] || [ -f "$root/$runtime_unit" ]; then
        try systemctl --quiet disable --now "$name.service"
        try systemctl stop "$name.service"
        try rm -f "$root/$systemd_unit" "$root/$runtime_unit"
        try systemctl daemon-reload
    fi
    if [ -f "$root/$openrc_script" ]; then
        try rc-service --quiet "$name" stop
        try rc-update --quiet del "$name"
        try rm -f "$root/$openrc_script"
    fi
    stop_plain
    remove_programs ''
    for file in "$kept" "$run/applied" "$run"/reporter.*; do
        [ ! -f "$file" ] || try rm -f "$file"
    done
    [ ! -d "$run" ] || try rmdir "$run" 2> /dev/null
    [ "$dry_run" = yes ] || say "uninstalled"
}

status() { # exit code 3 where it does not run, as service managers have it
    program=$(installed_program) || die 3 "not installed" "--help tells how to install it"
    printf 'installed  %s (%s)\n' "$program" "$(manager)"
    pid=$(running_pid) || die 3 "not running" "run this script without a word, as root, to start it"
    printf 'running    process %s\n' "$pid"
    [ ! -f "$run/reporter.status" ] || printf 'state      %s\n' "$(cat "$run/reporter.status")"
    [ ! -s "$run/applied" ] || sed 's/^/applied    /' "$run/applied"
}

"$command"
