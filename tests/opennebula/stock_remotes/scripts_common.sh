# shellcheck shell=sh
# Double of OpenNebula's shared shell functions: only what the stand-ins beside it call.
error_message() { echo "$1" >&2; }
log_error() { echo "ERROR: ${0##*/}: $1" >&2; }

uri_of() { # HOST: its libvirt; a line "HOST URI" a host in the file that ONE_DOUBLE_HOSTS names
    sed -n "s|^$1 ||p" "${ONE_DOUBLE_HOSTS:-/dev/null}"
}

exec_and_log() { # COMMAND... : its error becomes the message of the action
    said=$("$@" 2>&1) && return 0
    log_error "Command \"$*\" failed: $said"
    error_message "$said"
    return 1
}

xml_text() { # PATH-LIKE-TAG: the first such element in the XML on stdin
    tr -d '\n' | sed -n "s|.*<$1>\(<!\[CDATA\[\)\{0,1\}\([^]<]*\).*|\2|p"
}
