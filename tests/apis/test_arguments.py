"""The arguments that name a model."""

import argparse

import pytest

from mmgpt.apis import arguments
from mmgpt.apis.arguments import add_model_arguments, find_model


def parsed(*words):
    parser = argparse.ArgumentParser()
    add_model_arguments(parser)
    args = parser.parse_args(words)
    find_model(parser, args)
    return args


def test_without_a_model_the_quickstarts_is_asked_for(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(arguments, "QUICKSTART", (tmp_path / "config.py", tmp_path / "latest.pth"))
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
    assert arguments.QUICKSTART[0].is_file()
