"""The visualizer backends of trackers, on stand-ins of their packages."""

import sys
from types import ModuleType
from unittest.mock import MagicMock

import numpy as np
import pytest


@pytest.mark.parametrize("name", ["trackio", "swanlab"])
def test_a_run_is_logged(make_runner, monkeypatch, name):
    package, calls = ModuleType(name), []
    package.init = lambda **options: calls.append(("init", options))
    package.log = lambda row, step: calls.append(("log", row, step))
    package.finish = lambda: calls.append(("finish",))
    package.Image = lambda image: image.shape
    monkeypatch.setitem(sys.modules, name, package)
    runner = make_runner(tracker=name, max_epochs=1)
    runner.visualizer.add_image("answers", np.zeros((4, 6, 3), dtype=np.uint8), 2)
    runner.visualizer.add_scalar("accuracy", np.float32(0.5), 3)
    runner.train()
    (_, options), image, number, *steps, last = calls
    assert options["project"] == "mmgpt"
    assert options["config"]["work_dir"] == runner.work_dir
    assert image == ("log", {"answers": (4, 6, 3)}, 2)
    assert number == ("log", {"accuracy": 0.5}, 3)
    assert [step for *_, step in steps] == [*range(1, 1 + len(steps))]
    assert {"loss", "lr"} <= steps[0][1].keys()
    assert last == ("finish",)


@pytest.mark.parametrize("variable", ["", "http://localhost:1"])
def test_images_in_mlflow_have_names_of_files(make_runner, monkeypatch, variable):
    package, calls = MagicMock(), []
    package.log_image = lambda image, name: calls.append((image.shape, name))
    monkeypatch.setitem(sys.modules, "mlflow", package)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", variable) if variable else monkeypatch.delenv(
        "MLFLOW_TRACKING_URI", False
    )
    runner = make_runner(tracker="mlflow")
    runner.visualizer.add_image("answers", np.zeros((4, 6, 3), dtype=np.uint8), 2)
    assert calls == [((4, 6, 3), "answers_2.png")]
    package.set_tracking_uri.assert_called_once_with(variable or "sqlite:///mlflow.db")
