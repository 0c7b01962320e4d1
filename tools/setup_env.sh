# Sourced by tools/quickstart.sh and tests/run.sh: sets $PYTHON to a Python with everything the project needs.
#
# An activated environment (venv or conda) that satisfies the requirements is used; only this project is installed into
# it, if it is not there. Otherwise .venv is created in the project's root, and used again as long as
# requirements/tested.txt and the project's folder stay the same.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV=$ROOT/.venv
# This file is written last, so that an interrupted installation is not taken for a complete one.
STAMP=$VENV/.mmgpt-installed

find_python() {
    local candidate
    for candidate in python3.11 python3.12 python3.13 python3 python; do
        if "$candidate" -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
            >/dev/null 2>&1; then
            echo "$candidate"
            return
        fi
    done
    echo "Python 3.11, 3.12 or 3.13 with its venv module is needed and was not found" \
        "(Debian and Ubuntu: apt install python3.11 python3.11-venv)." >&2
    return 1
}

install_project() {
    "$PYTHON" -m pip install --disable-pip-version-check --no-build-isolation --no-deps --editable "$ROOT"
}

# Outside of this script, tools/train.py and demo/chat.py need the installed package. -I ignores PYTHONPATH.
install_if_absent() {
    local origin
    origin=$("$PYTHON" -I -c 'import importlib.util as u; print(getattr(u.find_spec("mmgpt"), "origin", ""))')
    if [[ -n $origin ]]; then
        [[ $origin -ef $ROOT/mmgpt/__init__.py ]] ||
            echo "Note: outside of this script, the activated environment takes mmgpt from $origin."
    elif ! install_project; then
        echo "The project could not be installed into the activated environment; set PYTHONPATH=$ROOT for its commands."
    fi
}

use_activated() {
    local active=${VIRTUAL_ENV:-${CONDA_PREFIX:-}} missing
    [[ -n $active && ! $active -ef $VENV && -x $active/bin/python ]] || return 1
    if missing=$("$active/bin/python" "$ROOT/tools/check_requirements.py" \
        "$ROOT/requirements/runtime.txt" "$ROOT/requirements/tests.txt" 2>&1); then
        PYTHON=$active/bin/python
        install_if_absent
    else
        echo "The activated environment $active does not satisfy the requirements, so .venv is used instead:"
        sed -n '1,12s/^/  /p' <<<"$missing"
        return 1
    fi
}

use_venv() {
    local stamp current base
    stamp=$ROOT$'\n'$(cksum <"$ROOT/requirements/tested.txt")
    current=$(cat "$STAMP" 2>/dev/null || true)
    PYTHON=$VENV/bin/python
    if [[ $current == "$stamp" && -x $PYTHON ]]; then
        return
    fi
    if [[ ${current%%$'\n'*} != "$ROOT" || ! -x $PYTHON ]]; then
        base=$(find_python)
        echo "Making .venv with $base and installing requirements/tested.txt: about 5 GB, some minutes ..."
        rm -rf "$VENV"
        "$base" -m venv "$VENV"
    fi
    rm -f "$STAMP"
    "$PYTHON" -m pip install --disable-pip-version-check -r "$ROOT/requirements/tested.txt"
    install_project
    echo "$stamp" >"$STAMP"
}

use_activated || use_venv
export PATH="$(dirname "$PYTHON"):$PATH"
export PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}"
