# Sourced by tools/quickstart.sh and tests/run.sh: leaves a Python with everything the project needs in $PYTHON.
#
# An activated environment (venv or conda) that satisfies the requirements is used; only this project is installed into
# it, where it has none. Otherwise .venv in the project's root is made once, and used again as long as
# requirements/tested.txt and the place stay the same.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV=$ROOT/.venv
# Written last, so that an installation that was cut off is not taken for a whole one.
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

# Without it, tools/train.py and demo/chat.py would not find mmgpt outside of this script. -I leaves out PYTHONPATH.
install_if_absent() {
    local found
    found=$("$PYTHON" -I -c 'import importlib.util as u; print(getattr(u.find_spec("mmgpt"), "origin", ""))')
    if [[ -n $found ]]; then
        [[ $found -ef $ROOT/mmgpt/__init__.py ]] ||
            echo "Note: outside of this script, the activated environment takes mmgpt from $found."
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

use_own() {
    local wanted current base
    wanted=$ROOT$'\n'$(cksum <"$ROOT/requirements/tested.txt")
    current=$(cat "$STAMP" 2>/dev/null || true)
    PYTHON=$VENV/bin/python
    if [[ $current == "$wanted" && -x $PYTHON ]]; then
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
    echo "$wanted" >"$STAMP"
}

use_activated || use_own
export PATH="$(dirname "$PYTHON"):$PATH"
export PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}"
