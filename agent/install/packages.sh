# shellcheck shell=sh
# The distribution's packages: which are missing, and how to get them. Read by install.sh.
# Promises: nothing is asked of apt where all is there, no service is started, none is added to the boot.

os_field() { sed -n "s/^$1=//p" "$os_release" 2>/dev/null | tr -d "\"'" | head -n 1; }

family() { # debian | el9 | el10 | fedora | arch | suse | unknown
    case " $(os_field ID) $(os_field ID_LIKE) " in
    *" debian "* | *" ubuntu "*) echo debian ;;
    " fedora  ") echo fedora ;;
    *" rhel "* | *" centos "* | *" fedora "*)
        case $(os_field VERSION_ID) in 9*) echo el9 ;; *) echo el10 ;; esac ;;
    *" arch "*) echo arch ;;
    *" suse "* | *" opensuse "*) echo suse ;;
    *) echo unknown ;;
    esac
}

debs() { # LEVEL: agent | demo | test
    echo python3-venv python3-libvirt
    [ "$1" = agent ] || echo qemu-system-x86 libvirt-daemon libvirt-daemon-driver-qemu kmod zstd
    [ "$1" != test ] || echo shellcheck cpio curl gcc libc6-dev libvirt-clients
}

missing_debs() { # PACKAGE...: those of them that are not installed
    for package in "$@"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || echo "$package"
    done
}

other_command() { # LEVEL FAMILY: what an administrator runs where packages cannot be installed from here
    case $2 in
    el9) names='python3.12 python3.12-devel libvirt-devel gcc pkgconf-pkg-config' ;;
    el10 | fedora) names='python3 python3-libvirt' ;;
    arch) names='python libvirt-python' ;;
    *) names='python3 python3-libvirt-python' ;;
    esac
    [ "$1" = agent ] || case $2 in
    el* | fedora) names="$names qemu-kvm-core libvirt-daemon libvirt-daemon-driver-qemu kmod zstd busybox qemu-guest-agent" ;;
    arch) names="$names qemu-system-x86 libvirt kmod zstd busybox qemu-guest-agent" ;;
    *) names="$names qemu-x86 libvirt-daemon-qemu kmod zstd busybox qemu-guest-agent" ;;
    esac
    [ "$1" != test ] || case $2 in arch) names="$names shellcheck cpio curl dash gcc" ;; *) names="$names ShellCheck cpio curl dash gcc libvirt-client" ;; esac
    case $2 in
    el*) echo "$(el_repositories "$1" "${2#el}")dnf install $names" ;;
    fedora) echo "dnf install $names" ;;
    arch) echo "pacman -S $names" ;;
    *) echo "zypper install $names" ;;
    esac
}

el_repositories() { # LEVEL VERSION: libvirt-devel is in CRB, busybox and ShellCheck are in EPEL
    crb="dnf config-manager --set-enabled crb && "
    epel="dnf install epel-release && "
    if [ "$(os_field ID)" = rhel ]; then
        crb="subscription-manager repos --enable codeready-builder-for-rhel-$2-x86_64-rpms && "
        epel="dnf install https://dl.fedoraproject.org/pub/epel/epel-release-latest-$2.noarch.rpm && "
    fi
    if [ "$1" != agent ]; then
        printf '%s%s' "$crb" "$epel"
    elif [ "$2" = 9 ]; then
        printf '%s' "$crb"
    fi
}

missing_programs() { # LEVEL: what is not there, by program
    find_python || echo 'python 3.11 or newer'
    [ "$1" = agent ] || {
        for program in libvirtd depmod modprobe busybox qemu-ga; do
            PATH=$PATH:/usr/sbin:/sbin command -v "$program" >/dev/null || echo "$program"
        done
        command -v qemu-system-x86_64 >/dev/null || [ -x /usr/libexec/qemu-kvm ] || echo qemu-system-x86_64
    }
    [ "$1" != test ] || for program in shellcheck cpio curl dash cc virsh; do
        command -v "$program" >/dev/null || echo "$program"
    done
}

enabled_units() {
    systemctl list-unit-files --state=enabled --no-legend --no-pager 2>/dev/null | cut -d ' ' -f 1 | sort
}

apt_install() { # PACKAGE...
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        -o DPkg::Lock::Timeout=300 "$@"
}

install_debs() { # PACKAGE...: starts no service, adds none to the boot
    command="apt-get install --no-install-recommends $*"
    am_root || command -v sudo >/dev/null ||
        die 77 "packages are missing, and installing them needs root" "ask an administrator to run: $command"
    [ "$dry_run" = yes ] || as_root true || die 77 "no root rights were given" "ask an administrator to run: $command"
    units=$(enabled_units)
    if [ "$dry_run" = no ] && [ ! -e /usr/sbin/policy-rc.d ]; then
        guard=/usr/sbin/policy-rc.d
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$guard" >/dev/null
        as_root chmod 755 "$guard"
    fi
    lists_present || step "refreshing the package lists" as_root apt-get update
    if ! try "installing $# packages (a minute or two): $*" apt_install "$@"; then
        step "refreshing the package lists, because that failed" as_root apt-get update
        step "installing $# packages again" apt_install "$@"
    fi
    [ -z "$guard" ] || as_root rm -f "$guard"
    guard=
    for unit in $(enabled_units); do
        printf '%s\n' "$units" | grep -qxF "$unit" || step "keeping $unit out of the boot" as_root systemctl disable "$unit"
    done
}

lists_present() { ls /var/lib/apt/lists/*_Packages* >/dev/null 2>&1; }

need_packages() { # LEVEL
    kind=$(family)
    if [ "$kind" = debian ]; then
        case $(os_field ID)-$(os_field VERSION_ID) in
        debian-[1-9] | debian-1[01] | ubuntu-1* | ubuntu-2[0-3].*)
            die 69 "$(os_field PRETTY_NAME) is too old" "vmpack needs Debian 12 or Ubuntu 24.04, or newer" ;;
        esac
        # shellcheck disable=SC2046 # package names: they are to be split
        set -- "$1" $(missing_debs $(debs "$1"))
        level=$1
        shift
        [ $# -eq 0 ] || install_debs "$@"
        # the lab takes its guests' kernel from the package lists, which a container image may lack
        if [ "$level" != agent ] && ! lists_present && { am_root || command -v sudo >/dev/null; }; then
            step "refreshing the package lists" as_root apt-get update
        fi
    else
        missing=$(missing_programs "$1" | tr '\n' ',' | sed 's/,$//; s/,/, /g')
        if [ -n "$missing" ]; then
            case $kind in el*) note= ;; *) note=' (nearest names; not tested there)' ;; esac
            die 69 "missing here: $missing" "as root: $(other_command "$1" "$kind")$note"
        fi
    fi
    find_python || [ "$dry_run" = yes ] || die 69 "no Python 3.11 or newer in /usr/bin" "vmpack uses the distribution's own Python"
}

find_python() { # sets python: the distribution's, never one from PATH
    for python in /usr/bin/python3 /usr/bin/python3.14 /usr/bin/python3.13 /usr/bin/python3.12 /usr/bin/python3.11; do
        "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && return 0
    done
    python=/usr/bin/python3
    return 1
}
