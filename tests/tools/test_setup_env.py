"""tools/setup_env.sh, with stand-ins for Python and pip that note how they are called."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / "tools"
# `python -m venv DIR` copies the stand-in into DIR; `pip install` fails when told to; FOUND is where mmgpt is.
STAND_IN = """#!/usr/bin/env bash
case "$*" in
    -I*) echo "${FOUND:-}";;
    -c*) exit 0;;
    "-m venv"*) mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; echo venv >> "$CALLS";;
    *"pip install"*) echo pip >> "$CALLS"; [[ -z "${BREAK:-}" ]];;
    *check_requirements.py*) exec "$REAL" "$@";;
esac
"""


@pytest.fixture
def project(tmp_path):
    """A project folder with the real tools and tiny requirement files."""
    root = tmp_path / "a project"
    (root / "tools").mkdir(parents=True)
    (root / "requirements").mkdir()
    for name in ("setup_env.sh", "check_requirements.py"):
        shutil.copy(TOOLS / name, root / "tools" / name)
    for name in ("runtime", "tests", "tested"):
        (root / "requirements" / f"{name}.txt").write_text("packaging>=20\n")
    (tmp_path / "bin").mkdir()
    (tmp_path / "activated" / "bin").mkdir(parents=True)
    for stand_in in (tmp_path / "bin" / "python3.11", tmp_path / "activated" / "bin" / "python"):
        stand_in.write_text(STAND_IN)
        stand_in.chmod(0o755)
    return root


def source(project, code=0, **variables):
    """Source the script; return what it calls, and the Python it settles on."""
    script = f"set -euo pipefail; source '{project}/tools/setup_env.sh'; echo \"python=$PYTHON path=$PYTHONPATH\""
    return run_bash(project, script, code, **variables)


def run_bash(project, script, code=0, **variables):
    """Run bash code where Python is a stand-in; return what it calls, and what is printed."""
    calls = project.parent / "calls.txt"
    calls.write_text("")
    environment = {
        "PATH": f"{project.parent / 'bin'}{os.pathsep}/usr/bin{os.pathsep}/bin",
        "HOME": str(project.parent / "home"),
        "CALLS": str(calls),
        "REAL": sys.executable,
        **variables,
    }
    done = subprocess.run(["bash", "-c", script], env=environment, cwd="/", capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    return calls.read_text().split(), done.stdout


def test_environment_is_made_once(project):
    calls, shown = source(project)
    assert calls == ["venv", "pip", "pip"]
    assert f"python={project}/.venv/bin/python path={project}\n" in shown
    assert source(project)[0] == []


def test_half_made_environment_is_made_again(project):
    assert source(project, code=1, BREAK="1")[0] == ["venv", "pip"]
    assert source(project)[0] == ["venv", "pip", "pip"]
    shutil.rmtree(project / ".venv" / "bin")
    assert source(project)[0] == ["venv", "pip", "pip"]


def test_new_pins_are_installed_into_it(project):
    source(project)
    (project / "requirements" / "tested.txt").write_text("packaging>=21\n")
    assert source(project)[0] == ["pip", "pip"]


def test_moved_project_gets_a_new_environment(project):
    source(project)
    moved = project.rename(project.parent / "moved")
    assert source(moved)[0] == ["venv", "pip", "pip"]


@pytest.fixture
def activated(project):
    return project.parent / "activated"


@pytest.mark.parametrize("variable", ["VIRTUAL_ENV", "CONDA_PREFIX"])
def test_activated_environment_is_used_when_it_will_do(project, activated, variable):
    calls, shown = source(project, **{variable: str(activated)})
    assert calls == ["pip"]
    assert f"python={activated}/bin/python" in shown


def test_project_is_installed_only_where_there_is_none(project, activated):
    (project / "mmgpt").mkdir()
    own = project / "mmgpt" / "__init__.py"
    own.touch()
    calls, shown = source(project, VIRTUAL_ENV=str(activated), FOUND=str(own))
    assert calls == []
    assert "Note" not in shown
    calls, shown = source(project, VIRTUAL_ENV=str(activated), FOUND="/another/mmgpt/__init__.py")
    assert calls == []
    assert "takes mmgpt from /another/mmgpt/__init__.py" in shown
    calls, shown = source(project, VIRTUAL_ENV=str(activated), BREAK="1")
    assert calls == ["pip"]
    assert f"set PYTHONPATH={project}" in shown
    assert f"python={activated}/bin/python" in shown


def test_activated_environment_that_will_not_do(project, activated):
    (project / "requirements" / "runtime.txt").write_text("-r tests.txt\nno-such-package>=2  # a comment\npip<1\n")
    calls, shown = source(project, VIRTUAL_ENV=str(activated))
    assert calls == ["venv", "pip", "pip"]
    assert "does not satisfy the requirements" in shown
    assert "no-such-package>=2 is not installed" in shown
    assert "pip<1, but" in shown


def test_what_stands_in_for_mmengine_will_do(project, activated):
    (project / "requirements" / "runtime.txt").write_text("mmengine>=99\n")
    assert "mmengine>=99" in source(project, VIRTUAL_ENV=str(activated))[1]
    (project / "requirements" / "onedl.txt").write_text("# packaging plays the part of onedl-mmengine\npackaging>=99\n")
    assert "mmengine>=99" in source(project, VIRTUAL_ENV=str(activated))[1]
    (project / "requirements" / "onedl.txt").write_text("packaging>=20\n")
    assert source(project, VIRTUAL_ENV=str(activated)) == (["pip"], f"python={activated}/bin/python path={project}\n")


def test_no_fitting_python(project):
    (project.parent / "bin" / "python3.11").write_text("#!/bin/sh\nexit 1\n")
    for name in ("python3.12", "python3.13", "python3", "python"):
        shutil.copy(project.parent / "bin" / "python3.11", project.parent / "bin" / name)
    assert source(project, code=1)[0] == []
