"""Command-line options that name a model."""

import argparse

import pytest

from mmgpt.cli import model_options
from mmgpt.cli.model_options import add_model_options, chat_arguments, default_to_quickstart


def parsed(*words):
    parser = argparse.ArgumentParser()
    add_model_options(parser)
    args = parser.parse_args(words)
    default_to_quickstart(parser, args)
    return args


def test_the_quickstarts_model_is_the_default(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(model_options, "QUICKSTART", (tmp_path / "config.py", tmp_path / "latest.pth"))
    with pytest.raises(SystemExit):
        parsed()
    assert "tools/quickstart.sh" in capsys.readouterr().err
    (tmp_path / "latest.pth").touch()
    args = parsed("--device", "cpu")
    assert (args.config, args.checkpoint) == (tmp_path / "config.py", tmp_path / "latest.pth")


def test_a_named_model_stays():
    args = parsed("x.py", "--cfg-options", "a.b=1")
    assert (args.config, args.checkpoint, args.cfg_options) == ("x.py", None, {"a.b": 1})


def test_the_quickstarts_config_exists():
    assert model_options.QUICKSTART[0].is_file()


def test_a_missing_config_is_found_before_the_model_is_built(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing.py"):
        chat_arguments(parsed(str(tmp_path / "nothing.py")))
