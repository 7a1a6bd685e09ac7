#!/bin/sh
# Tells the cloud, through OneGate, how this VM uses its memory, and keeps what the cloud applies to it in a file.
# Runs inside a VM as root: one shell that sleeps, looks into /proc and now and then starts curl. Installed and
# started by onegate_init.sh. Promises: never more than one request in a third of a period, the token in no command line,
# no environment and no log, no file that grows, and an end as soon as it is asked to end.
set -u

usage() {
    cat << 'END'
vmpack's reporter: tells the cloud how this VM uses its memory. onegate_init.sh installs it and starts it.

  onegate_publisher.sh [--root DIR]             report until SIGTERM
  onegate_publisher.sh --dry-run [--root DIR]   print one report and where it would go; send nothing

It reads the VM's OneGate endpoint, VM id and token from /var/run/one-context/one_env. Every report is a few lines
NAME=INTEGER that `onevm show` lists: memory and swap in KiB, hard faults and OOM kills since boot, memory pressure
in per mille of the last 10 s, and the time. One is sent when memory has changed by 5 % (8 MiB or more), and at
least every N seconds, but never two requests within N/3. N is the context variable VMPACK_REPORT_INTERVAL
(5 to 3600 s; 60 s where it is not set). What the cloud applies to this VM is read from time to time and kept in
/run/vmpack/applied, as lines NAME=INTEGER too.

While OneGate cannot be reached it tries more and more seldom, at last every 5 minutes.
END
}

die() { # CODE MESSAGE HINT
    printf 'vmpack-onegate: %s\n  %s\n' "$2" "$3" >&2
    exit "$1"
}

root=
dry_run=no
while [ $# -gt 0 ]; do
    case $1 in
    -h | --help) usage && exit 0 ;;
    --dry-run) dry_run=yes ;;
    --root) [ $# -gt 1 ] && root=${2%/} && shift ;;
    *) die 2 "unknown: $1" "--help lists what there is" ;;
    esac
    shift
done

PATH=${PATH:-/usr/local/bin}:/usr/bin:/bin:/usr/sbin:/sbin
LC_ALL=C
proc=$root/proc
run=$root/run/vmpack
context=$root/var/run/one-context/one_env
kept=$run/reporter.env # what onegate_init.sh kept of the context of very old guests
pid_file=$run/reporter.pid
status_file=$run/reporter.status
answer=$run/reporter.answer
vm_file=$run/reporter.vm
applied=$run/applied
TMPDIR=$run # where some shells keep here-documents
export PATH LC_ALL TMPDIR

longest_pause_s=300
margin_cs=100 # a report that is due within this is sent now: the next look would be too late
reports_per_question=3 # one more where there was no time for it
token='' vmid='' endpoint='' period_s=''
said='' window_ends_cs=0
waits=no # for a process that a signal must end too

# ---- what the kernel says ----

read_clock() { # sets now_cs: hundredths of a second since boot, which no setting of the clock changes
    read -r uptime _ < "$proc/uptime"
    now_cs=${uptime%.*}${uptime#*.}
    now_cs=${now_cs#0}
    now_cs=${now_cs#0} # a shell reads 08 as octal
}

read_memory() { # KiB; empty where the kernel does not say
    mem_total='' mem_free='' mem_available='' swap_total='' swap_free=''
    while read -r key value _; do
        case $key in
        MemTotal:) mem_total=$value ;;
        MemFree:) mem_free=$value ;;
        MemAvailable:) mem_available=$value ;;
        SwapTotal:) swap_total=$value ;;
        SwapFree:) swap_free=$value && break ;;
        esac
    done 2> /dev/null < "$proc/meminfo"
    can_take=${mem_available:-$mem_free}
}

read_events() { # counts since boot; empty where the kernel does not say
    major_faults='' oom_kills=''
    while read -r key value; do
        case $key in
        pgmajfault) major_faults=$value ;;
        oom_kill) oom_kills=$value && break ;;
        esac
    done 2> /dev/null < "$proc/vmstat"
}

read_pressure() { # per mille of the last 10 s; empty where the kernel does not say
    some='' full=''
    while read -r kind share _; do
        share=${share#avg10=}
        tenths=${share#*.}
        case $kind:${share%.*}${tenths%?} in
        some:[0-9]*) some=$((${share%.*} * 10 + ${tenths%?})) ;;
        full:[0-9]*) full=$((${share%.*} * 10 + ${tenths%?})) ;;
        esac
    done 2> /dev/null < "$proc/pressure/memory"
}

# ---- the report ----

add() { # NAME VALUE: one more line of the report, where the value is an integer
    case $2 in '' | *[!0-9]*) return ;; esac
    report="$report${report:+$between}$1=$2"
}

write_report() { # SEPARATOR: sets report
    between=$1
    report=
    read_events
    read_pressure
    add MEM_TOTAL "$mem_total"
    add MEM_FREE "$mem_free"
    add MEM_AVAILABLE "$mem_available"
    add SWAP_TOTAL "$swap_total"
    add SWAP_FREE "$swap_free"
    add PGMAJFAULT "$major_faults"
    add OOM_KILLS "$oom_kills"
    add PSI_MEM_SOME_PERMILLE "$some"
    add PSI_MEM_FULL_PERMILLE "$full"
    add TIMESTAMP "$(date +%s)"
}

remember_memory() {
    sent_total=$mem_total sent_can_take=$can_take sent_swap=$swap_free
    threshold_kib=$((sent_total / 20))
    [ "$threshold_kib" -ge 8192 ] || threshold_kib=8192
}

differs() { # A B, in KiB: by enough to be told
    change_kib=$((${1:-0} - ${2:-0}))
    [ "${change_kib#-}" -ge "$threshold_kib" ]
}

memory_changed() {
    differs "$mem_total" "$sent_total" || differs "$can_take" "$sent_can_take" || differs "$swap_free" "$sent_swap"
}

# ---- OneGate ----

unquoted() { # sets value: what stands after NAME=, less the quotes
    value=${line#*=}
    value=${value#[\"\']}
    value=${value%[\"\']}
}

read_context() { # the first of each name is the cloud's own; what an owner's script has in it comes later
    token='' vmid='' endpoint='' period_s=''
    file=$context
    [ -r "$file" ] || file=$kept
    [ -r "$file" ] || return
    while IFS= read -r line; do
        line=${line#export }
        case $line in
        TOKENTXT=*) [ -n "$token" ] || { unquoted && token=$value; } ;;
        VMID=*) [ -n "$vmid" ] || { unquoted && vmid=$value; } ;;
        ONEGATE_ENDPOINT=*) [ -n "$endpoint" ] || { unquoted && endpoint=${value%/}; } ;;
        VMPACK_REPORT_INTERVAL=*) [ -n "$period_s" ] || { unquoted && period_s=$value; } ;;
        esac
    done < "$file"
}

check_context() { # false where it is no use; nothing odd may reach curl
    case $period_s in '' | 0* | *[!0-9]* | ?????*) period_s=60 ;; esac
    if [ "$period_s" -lt 5 ] || [ "$period_s" -gt 3600 ]; then period_s=60; fi
    case $token in '' | *[!A-Za-z0-9+/=]*) return 1 ;; esac
    case $vmid in '' | *[!0-9]*) return 1 ;; esac
    case $endpoint in
    *[!][A-Za-z0-9.:/_%-]*) return 1 ;;
    http://?* | https://?*) ;;
    *) return 1 ;;
    esac
}

load_context() { # sets ready, and renewed: is it another than before?
    before="$token $vmid $endpoint $period_s"
    echo $$ > "$pid_file" # its age tells when the context was read last
    read_context
    ready=yes
    check_context || ready=no
    renewed=no
    [ "$before" = "$token $vmid $endpoint $period_s" ] || renewed=yes
    step_s=$(((period_s + 11) / 12))
    window_cs=$((period_s * 100 / 3))
}

context_is_newer() {
    # shellcheck disable=SC3013 # dash, ash and bash all know -nt
    [ "$context" -nt "$pid_file" ] || [ "$kept" -nt "$pid_file" ]
}

in_background() { # waits for what was started last, in a way that hears a signal at once
    wait "$!"
    result=$?
    waits=no
}

ask() { # METHOD OUTPUT LINE...: one request; sets http, 000 where there was no answer
    method=$1 output=$2
    shift 2
    waits=yes
    curl -q -K - > "$answer" 2> /dev/null << END &
url = "$endpoint/vm"
request = "$method"
header = "X-ONEGATE-TOKEN: $token"
header = "X-ONEGATE-VMID: $vmid"
output = "$output"
write-out = "%{http_code}\n"
connect-timeout = 5
max-time = 20
noproxy = "*"
globoff
silent
$*
END
    in_background
    http=
    read -r http < "$answer"
    case $http in [1-5][0-9][0-9]) ;; *) http=000 ;; esac
    [ "$result" -eq 0 ] || http=000
    read_clock
    window_ends_cs=$((now_cs + window_cs))
}

send_report() {
    write_report '\n' # as curl's configuration has it
    last_report_cs=$now_cs
    remember_memory
    ask PUT /dev/null 'header = "Content-Type: text/plain"
data-binary = "'"$report"'"'
}

ask_what_applies() {
    reports=0
    ask GET "$vm_file"
    [ "$http" = 200 ] && keep_applied
    rm -f "$vm_file"
}

keep_applied() { # our integers out of OneGate's JSON: inside its strings no quote stands without a backslash
    umask 022
    tr '{' ',' < "$vm_file" | tr ',' '\n' |
        sed -n 's/^"\(VMPACK_APPLIED_[A-Z_]\{1,40\}\)":"\([0-9]\{1,15\}\)"}*$/\1=\2/p' > "$applied.new"
    umask 077
    mv -f "$applied.new" "$applied"
}

# ---- what to do now ----

say() { # TEXT: told once, until there is something else to tell
    [ "$1" = "$said" ] && return
    said=$1
    printf 'vmpack-onegate: %s\n' "$1" >&2
    umask 022
    printf '%s\n' "$1" > "$status_file"
    umask 077
}

go_on() {
    reports=$((reports + 1))
    pause_s=$period_s
    say "reporting to $endpoint at least every $period_s s"
}

hold_back() { # after a failure: wait twice as long each time
    case $http in
    000) why="no answer from $endpoint (curl: $result)" ;;
    401) why="OneGate does not accept the token (401)" ;;
    403) why="OneGate forbids it (403)" ;;
    *) why="OneGate answers $http" ;;
    esac
    say "$why; trying again, at last every $longest_pause_s s"
    not_before_cs=$((now_cs + pause_s * 100))
    pause_s=$((pause_s * 2))
    [ "$pause_s" -le "$longest_pause_s" ] || pause_s=$longest_pause_s
}

refused() { # a context that was renewed meanwhile is tried in the next window, anything else later
    load_context # after a clock that was set back its file may not be newer
    [ "$renewed" = no ] || { start_anew && return; }
    hold_back
}

may_ask() { # without making the next report late
    [ "$reports" -ge "$reports_per_question" ] && [ "$due_cs" -ge "$window_cs" ]
}

must_ask() { # though the next report is late then: a guest that is short of time never may
    [ "$reports" -gt "$reports_per_question" ]
}

turn() { # at most one request
    read_memory
    case $mem_total in '' | *[!0-9]*) return ;; esac
    if must_ask || { [ "$due_cs" -gt 0 ] && ! memory_changed && may_ask; }; then
        ask_what_applies
        [ "$http" != 401 ] || refused
    elif [ "$due_cs" -le 0 ] || memory_changed; then
        send_report
        case $http in 200) go_on ;; *) refused ;; esac
    fi
}

start_anew() { # with this context
    not_before_cs=0
    last_report_cs=-1000000
    reports=$((reports_per_question - 1))
    pause_s=$period_s
    [ "$ready" = yes ] || say "waiting for endpoint, VMID and token in $context: the VM's CONTEXT needs TOKEN=\"YES\""
}

reckon_due() { due_cs=$((last_report_cs + period_s * 100 - margin_cs - now_cs)); }

look() {
    read_clock
    if [ "$ready" = no ] || context_is_newer; then
        load_context
        [ "$renewed" = no ] || start_anew
    fi
    reckon_due
    [ "$ready" = no ] || [ "$now_cs" -lt "$window_ends_cs" ] || [ "$now_cs" -lt "$not_before_cs" ] || turn
}

rest() { # until the next look, or the next report where that is sooner
    read_clock
    reckon_due
    rest_s=$(((due_cs + 99) / 100))
    if [ "$rest_s" -gt "$step_s" ] || [ "$rest_s" -lt 1 ]; then rest_s=$step_s; fi
    waits=yes
    sleep "$rest_s" &
    in_background
}

# ---- one at a time ----

holder() { # sets pid: of whoever holds the lock file
    pid=
    read -r pid 2> /dev/null < "$pid_file"
    case $pid in '' | *[!0-9]*) pid=0 ;; esac
}

holder_runs() {
    holder
    [ "$pid" -gt 1 ] && [ "$pid" -ne $$ ] && [ -r "/proc/$pid/cmdline" ] || return 1
    command=
    IFS= read -r command 2> /dev/null < "/proc/$pid/cmdline"
    case $command in *onegate?publisher*) ;; *) return 1 ;; esac
}

take_lock() {
    mkdir -p "$run" || die 73 "$run cannot be made" "run this as root"
    (set -C && echo $$ > "$pid_file") 2> /dev/null && return
    ! holder_runs || die 75 "it runs already, as process $pid" "stop that one first, or leave it"
    echo $$ > "$pid_file" || die 73 "$pid_file cannot be written" "run this as root"
}

end() {
    trap '' TERM INT HUP
    set +u # a signal may come before anything was started
    [ "$waits" = no ] || kill "$!" 2> /dev/null
    holder
    [ "$pid" -ne $$ ] || rm -f "$pid_file" "$status_file" "$answer" "$vm_file" "$applied" "$applied.new"
    rmdir "$run" 2> /dev/null
    exit 0
}

if [ "$dry_run" = yes ]; then
    read_context
    check_context || die 78 "no endpoint, VMID and token in $context" "the VM's CONTEXT needs TOKEN=\"YES\""
    read_memory
    write_report '
'
    printf '# would: PUT %s/vm as VM %s, on change and at least every %s s\n%s\n' "$endpoint" "$vmid" "$period_s" "$report"
    exit 0
fi

command -v curl > /dev/null || die 69 "curl is missing" "install the package curl"
[ -r "$proc/uptime" ] || die 69 "$proc/uptime cannot be read" "this works on Linux only"
umask 022
take_lock
umask 077
trap end TERM INT
trap '' HUP XFSZ
ulimit -f 2048 # 1 MiB, also for curl: no answer of any length fills a file system
load_context
start_anew
while holder && [ "$pid" -eq $$ ]; do
    look
    rest
done
end
