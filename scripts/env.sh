# Sourced by the other scripts: a virtual environment with requirements.txt installed, made once and then reused.
# It lies in the user's cache folder (LIVE_CACHE overrides it) under the hash of the requirements and the Python version.
# PYTHON names the interpreter to build it with, 3.10 to 3.12; default: python3.

live_absolute() { # NAMES of variables that hold paths, relative to where the user is: before a script changes its folder
    local name
    for name in "$@"; do
        [ -z "${!name:-}" ] || export "$name=$(realpath -m "${!name}")"
    done
}
live_needs() { # NAME WHAT: refuses where the variable is not set
    [ -n "${!1:-}" ] || {
        echo "live: set $1 to $2" >&2
        exit 2
    }
}
live_root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
live_python="${PYTHON:-python3}"
if ! live_version="$("$live_python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)"; then
    echo "live: cannot run $live_python; set PYTHON to a Python 3.10, 3.11 or 3.12" >&2
    return 2
fi
case "$live_version" in
    3.10 | 3.11 | 3.12) ;;
    *)
        echo "live: $live_python is Python $live_version; set PYTHON to a Python 3.10, 3.11 or 3.12" >&2
        return 2
        ;;
esac

live_hash="$("$live_python" - "$live_root/requirements.txt" <<'PY'
import hashlib, sys
with open(sys.argv[1], "rb") as file:
    print(hashlib.sha256(file.read() + sys.version.encode()).hexdigest()[:16])
PY
)"
if [ -z "$live_hash" ]; then # interrupted, or no requirements.txt: the folder of all environments must not be taken for one
    echo "live: cannot read $live_root/requirements.txt; run again" >&2
    return 1
fi
live_venvs="${LIVE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/live-codec}/venvs"
live_venv="$live_venvs/$live_hash"
mkdir -p "$live_venvs"
live_install() {
    echo "live: installing the requirements for Python $live_version into $live_venv (once)" >&2
    rm -rf "$live_venv" &&
        "$live_python" -m venv "$live_venv" &&
        "$live_venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$live_root/requirements.txt" &&
        touch "$live_venv/complete"
}

if [ ! -f "$live_venv/complete" ]; then
    # The lock belongs to this shell's open file, so it ends with the shell whatever happens.
    exec 9>"$live_venv.lock"
    "$live_python" -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX)'
    if [ ! -f "$live_venv/complete" ] && ! live_install; then # another run may have made it meanwhile
        echo "live: the installation failed; run again once the package index can be reached" >&2
        exec 9>&-
        return 1
    fi
    exec 9>&-
fi

export PATH="$live_venv/bin:$PATH"
export VIRTUAL_ENV="$live_venv"
export PYTHONPATH="$live_root${PYTHONPATH:+:$PYTHONPATH}"
export OMP_WAIT_POLICY=PASSIVE
unset PYTHONHOME
