# shellcheck shell=sh
# The checkout's own Python environment, ./.venv. Read by install.sh.
# Promises: made again when it is broken, moved or of another Python; left alone when nothing changed.

need_venv() { # LEVEL: core | test
    exec 9<"$root"
    if command -v flock >/dev/null && ! flock -n 9; then
        say "waiting for another install.sh in this folder"
        flock 9
    fi
    identity="$("$python" -V 2>&1 || :) $root"
    contents=$(cat "$root/setup.cfg" "$root/pyproject.toml" "$root/agent/vmpack/__init__.py" | cksum)
    stamp=$venv/.vmpack-stamp
    had_level=$(sed -n 1p "$stamp" 2>/dev/null || :)
    had_identity=$(sed -n 2p "$stamp" 2>/dev/null || :)
    had_contents=$(sed -n 3p "$stamp" 2>/dev/null || :)
    if [ -n "$had_level" ] && [ "$had_identity" != "$identity" ] || ! "$venv/bin/python" -c 'import pip, libvirt' 2>/dev/null; then
        had_contents=
        may_write
        step "making a Python environment in .venv" "$python" -m venv --clear --system-site-packages "$venv"
    fi
    level=$1
    [ "$had_level" != test ] || level='test'
    if [ "$had_contents" != "$contents" ] || [ "$had_level" != "$level" ]; then
        may_write
        case $level in test) what='.[test]' ;; *) what=. ;; esac
        step "installing Python packages into .venv" pip_editable "$what"
        [ "$dry_run" = yes ] || printf '%s\n' "$level" "$identity" "$contents" >"$stamp"
    fi
    exec 9<&-
}

may_write() {
    [ -w "$root" ] && { [ ! -e "$venv" ] || [ -w "$venv" ]; } ||
        die 77 "$venv cannot be written" "clone vmpack into a folder of yours (or remove a .venv that somebody else made)"
}

pip_editable() {
    rm -f "$stamp" && (cd "$root" && "$venv/bin/python" -m pip install --disable-pip-version-check -e "$1")
}
