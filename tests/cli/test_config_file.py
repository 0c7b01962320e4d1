"""Mistakes in config files are told by file and line."""

import codecs

import pytest

from mmgpt.cli import load_config


def refused(path, *words):
    with pytest.raises((ValueError, FileNotFoundError)) as raised:
        load_config(path)
    for word in (str(path.parent), *words):
        assert word in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (codecs.BOM_UTF8 + b"a = 1", ["byte order mark", "plain UTF-8"]),
        ("a = 1".encode("utf-16"), ["is UTF-16", "plain UTF-8"]),
        ("a = 1".encode("utf-16-be"), ["UTF-16", "plain UTF-8"]),
        ("a = 1\nb = 'ä'".encode("latin-1"), ["not UTF-8 in line 2"]),
        (b"a = (1,\nb = 2", ["line 1", "never closed"]),
        (b"if True:\n\ta = 1\n        b = 2", ["line 3", "TabError"]),
        (b"  a = 1", ["line 1", "IndentationError"]),
        (b"a = 1\nb = 'C:\\Users'", ["line 2", "r'C:\\data'"]),
        (b"a = 1\nb = c", ["line 2", "NameError", "'c'"]),
        (b"a = 1 / 0", ["line 1", "ZeroDivisionError"]),
        (b"a = dict(x=1)\nb = a['y']", ["line 2", "KeyError: y"]),
        (b"custom_imports = dict(imports=['no_such_module'])", ["no_such_module"]),
        (b"_base_ = 5", ["_base_ is [5]"]),
        (b"_base_ = ['./gone.py']", ["./gone.py", "not there"]),
        (b"_base_ = '..\\\\models\\\\gone.py'", ["backslashes; write /"]),
        (b"filename = 1", ["filename is reserved"]),
        (b"a = []\na.append(a)", ["RecursionError"]),
    ],
)
@pytest.mark.parametrize("inherited", [False, True])
def test_mistakes_name_the_file(tmp_path, content, words, inherited):
    path = tmp_path / "experiment.py"
    path.write_bytes(content)
    if inherited:
        (tmp_path / "child.py").write_text("_base_ = ['./experiment.py']")
        refused(tmp_path / "child.py", *words)
    else:
        refused(path, *words, "experiment.py")


def test_configs_that_inherit_in_a_circle(tmp_path):
    for name, base in (("a", "b"), ("b", "c"), ("c", "a")):
        (tmp_path / f"{name}.py").write_text(f"_base_ = './{base}.py'")
    refused(tmp_path / "a.py", "circle", "a.py -> ", "c.py")
    (tmp_path / "d.py").write_text("_base_ = './d.py'")
    refused(tmp_path / "d.py", "circle")


def test_two_bases_of_one_base(tmp_path):
    (tmp_path / "a.py").write_text("x = 1")
    (tmp_path / "b.py").write_text("_base_ = './a.py'\ny = 1")
    (tmp_path / "c.py").write_text("_base_ = ['./b.py']\nz = _base_.y")
    assert load_config(tmp_path / "c.py").to_dict() == dict(x=1, y=1, z=1)
    (tmp_path / "d.py").write_text("_base_ = ['./a.py', './b.py']")
    refused(tmp_path / "d.py", "Duplicate key")


def test_other_kinds_of_file(tmp_path):
    (tmp_path / "a.json").write_text('{"a": 1,\n}')
    refused(tmp_path / "a.json", "line 2", "not JSON")
    (tmp_path / "a.yaml").write_text("a: [1")
    refused(tmp_path / "a.yaml", "a.yaml")
    (tmp_path / "a.txt").write_text("a = 1")
    refused(tmp_path / "a.txt", "ends in .py, .json")
    (tmp_path / "b.json").write_text('{"a": [1, "b"]}')
    assert load_config(tmp_path / "b.json").a == [1, "b"]
    (tmp_path / "b.yaml").write_text("a: .inf")
    assert load_config(tmp_path / "b.yaml").a == float("inf")


def test_a_folder_and_a_path_with_backslashes(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.py").write_text("a = 1")
    refused(tmp_path / "folder", "is a folder, not a config file", "a.py")
    with pytest.raises(FileNotFoundError, match="did you mean '.*/folder/a.py'"):
        load_config(f"{tmp_path}\\folder\\a.py")


def test_a_module_that_is_not_found_is_told_with_the_way_to_find_it(tmp_path):
    (tmp_path / "a.py").write_text("custom_imports = dict(imports=['no_such.module'])\n")
    with pytest.raises(ValueError, match="Failed to import no_such.module; .* export PYTHONPATH=."):
        load_config(tmp_path / "a.py")
