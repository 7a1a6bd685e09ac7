# shellcheck shell=sh
# What our probes share. Sourced by them on a node; on the node it lies in vmpack/ beside im/.
# Promises: no program is started to see whether the agent's text is fresh, and nothing waits without a limit.

PATH=/usr/sbin:/usr/bin:/sbin:/bin
export PATH LC_ALL=C
run_dir=${VMPACK_RUN_DIR:-/run/vmpack}

# All in one call of this function: the file may be replaced or taken away at any moment.
fresh_text() { # CATEGORY: prints what the agent rendered, or fails: gone, old, cut short, from before a reboot
    [ -f "$run_dir/probe/$1" ] && [ ! -L "$run_dir/probe/$1" ] || return 1
    {
        read -r mark name from_s until_s length
        text=$(cat)
    } <"$run_dir/probe/$1" || return 1
    read -r now_s _ </proc/uptime || return 1
    now_s=${now_s%.*}
    case $from_s:$until_s:$length in *[!0-9:]* | :* | *: | *::*) return 1 ;; esac
    [ "$mark $name" = "# vmpack" ] && [ "$from_s" -le "$now_s" ] && [ "$now_s" -le "$until_s" ] || return 1
    [ "${#text}" = "$length" ] || return 1
    [ -z "$text" ] || printf '%s\n' "$text"
}

fallback_text() { # CATEGORY LIBRARY: prints what libvirt itself knows, or fails
    text=$(timeout -k 1 8 /usr/bin/python3 -I -S -B "$2/fallback.py" "$1" </dev/null 2>/dev/null) || return 1
    [ -z "$text" ] || printf '%s\n' "$text"
}
