"""--adapter on the command line."""

import argparse

import pytest

from mmgpt.cli.adapters import adapter_folders, add_adapter_option
from mmgpt.cli.model_options import add_model_options, chat_arguments


def parsed(*arguments):
    parser = argparse.ArgumentParser()
    add_model_options(parser)
    add_adapter_option(parser)
    return parser.parse_args(arguments)


@pytest.fixture
def folder(tmp_path):
    """A folder with the files of an adapter of peft, and a config."""
    for name in ("adapter_model.safetensors", "adapter_config.json", "experiment.py"):
        (tmp_path / name).touch()
    return tmp_path


def test_adapters_are_arguments_of_the_chat(folder):
    config, names = str(folder / "experiment.py"), [f"--adapter=one={folder}", "--adapter", f"two={folder}"]
    assert chat_arguments(parsed(config, *names))["adapters"] == {"one": str(folder), "two": str(folder)}
    assert chat_arguments(parsed(config))["adapters"] == {}
    assert adapter_folders({"one": folder}) == {"one": folder}


def test_what_is_wrong_is_said_before_anything_is_loaded(folder, capsys):
    config = str(folder / "experiment.py")
    for text in ("one", "one=", "=x"):
        with pytest.raises((SystemExit, ValueError)):
            chat_arguments(parsed(config, "--adapter", text))
    assert "give NAME=PATH, got 'one='" in capsys.readouterr().err
    with pytest.raises(ValueError, match="two adapters have one name: one, one"):
        chat_arguments(parsed(config, f"--adapter=one={folder}", f"--adapter=one={folder}"))
    with pytest.raises(FileNotFoundError, match="adapter 'one': .*nowhere"):
        chat_arguments(parsed(config, "--adapter=one=nowhere"))
