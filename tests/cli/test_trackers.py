"""Trackers by name, and their packages."""

import re
import sys

import pytest

from mmgpt.cli import load_config
from mmgpt.cli.trackers import PACKAGES, TRACKERS, check_trackers
from tests.helpers.stub_training import CONFIGS

RUNTIME = CONFIGS / "_base_" / "default_runtime.py"


def test_trackers_are_named():
    for name, backends in TRACKERS.items():
        assert load_config(RUNTIME, {"tracker": name}).visualizer.vis_backends == backends
    with pytest.raises(KeyError, match="unknown tracker 'wandbb'; did you mean 'wandb'.*aim, clearml, files, mlflow"):
        load_config(RUNTIME, {"tracker": "wandbb"})


@pytest.mark.parametrize("name", [name for name in TRACKERS if name != "files"])
def test_a_missing_package_is_named_with_its_requirements_file(make_runner, monkeypatch, name):
    local, backend = TRACKERS[name]
    package = backend.get("package") or PACKAGES[backend["type"]]
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        ValueError, match=f"the tracker needs the package {package}: pip install -r requirements/{package}.txt"
    ):
        make_runner(tracker=name)
    requirements = (CONFIGS.parent / "requirements" / f"{package}.txt").read_text()
    assert re.search(f"^{package}>=", requirements, re.MULTILINE)
    check_trackers([local])
