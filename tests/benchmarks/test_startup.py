"""Startup times: processes are timed until they print a line; weights are loaded from files."""

import sys

import pytest
from mmengine.config import Config

from benchmarks import startup
from benchmarks.startup import LANGUAGE, LOADING, answered, ratios, rows, stepped, until

PRINTS = "import time; print('one'); print(input()); time.sleep(60)"


def test_until_waits_for_the_lines_of_a_process():
    printed = []

    def condition(lines):
        printed.extend(lines[-1:])
        return "two" in lines[-1]

    seconds = until([sys.executable, "-c", PRINTS], condition, "two\n")
    assert 0 < seconds < 50
    assert printed == ["one\n", "two\n"]


def test_until_refuses_a_process_that_ends_early():
    with pytest.raises(ValueError, match="(?s)ended early:.*ZeroDivisionError"):
        until([sys.executable, "-c", "1 / 0"], lambda lines: False)


def test_conditions_recognize_the_lines_of_training_and_chat():
    assert stepped(["x", "11/23 12:00:00 - mmengine - INFO - Iter(train) [ 1/99]  lr: 2e-3  loss: 6.7\n"])
    assert not stepped(["11/23 12:00:00 - mmengine - INFO - Iter(train) [ 1/99]\n", "loss: 3"])
    assert answered(["x goes with the next question\n", "Ask a question; /help lists the commands.\n", "red\n"])
    assert not answered(["loading\n", "Ask a question; /help lists the commands.\n"])


def test_rows_and_ratios(small_cfg, tmp_path, monkeypatch):
    monkeypatch.setattr(startup, "check_files", lambda cfg, skip: None)
    cases = rows(small_cfg, tmp_path, "cpu")
    loaded = Config.fromfile(tmp_path / "config.py")
    assert loaded.model == small_cfg.model
    # What the processes are told is run by tools' own tests.
    times = {name: [case() if name in (LANGUAGE, LOADING) else 1.0] for name, case in cases.items()}
    assert set(ratios(times)) == {"first_step_over_imports", "first_token_over_imports", "loading_over_language"}
    assert small_cfg.model.module.language.config.model_type == "llama"
