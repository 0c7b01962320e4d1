"""What a config holds is written so that it reads back, or refused before the run."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from mmgpt.cli import load_config
from mmgpt.cli.config_text import PlainConfig

VALUES = dict(
    infinite=[float("inf"), dict(a=-float("inf"), b=(1.0, float("inf")))],
    numbers=[1, 1.5, -0.0, 1e300, 10**30, True, None],
    texts=["", "a'b\"c", "two\nlines", "back\\slash\\n", "ä€𝄞", "{{ x }}", "#", r"C:\new\table"],
    raw=b"\x00\xff'\n",
    tuples=(1,),
    empty=[(), [], {}, set(), ""],
    nested=((((1,), 2), [3, (4,)]), {"a": ({"b": ()},)}),
    sets={1, "a", (2, 3)},
    frozen=frozenset({1}),
    keys={"class": 1, "a b": 2, "it's": 3, 4: 5, None: 6, True: 7, 1.5: 8, "lambda": dict(x=1)},
    long=["x" * 60, "y" * 60, dict(a="z" * 100, b=["w" * 50] * 3)],
)


def deep(times):
    value = 1
    for i in range(times):
        value = ({"a": value}, [value], (value,))[i % 3]
    return value


@pytest.fixture
def read_back(tmp_path):
    def function(options):
        path = tmp_path / "experiment.py"
        path.write_text("".join(f"{name} = None\n" for name in options))
        cfg = load_config(path, options)
        cfg.dump(tmp_path / "dumped.py")
        assert (tmp_path / "dumped.py").read_text() == cfg.pretty_text
        return cfg.to_dict(), load_config(tmp_path / "dumped.py").to_dict()

    return function


def test_values_read_back_equal_and_of_their_kinds(read_back):
    before, after = read_back(dict(values=VALUES, deep=deep(50)))
    assert after == before
    assert repr(after["values"]["nested"]) == repr(VALUES["nested"])
    assert after["values"] == VALUES
    assert type(after["values"]["frozen"]) is frozenset
    assert math.isnan(read_back(dict(a=[math.nan]))[1]["a"][0])


def test_what_has_a_plain_form_is_held_in_it(read_back):
    given = dict(
        a=np.float32(0.5), b=[np.int64(3), np.str_("c"), np.bool_(True)], c=Path("/data/x"), d={np.int64(1): 2}
    )
    before, after = read_back(given)
    assert repr(after) == repr(before) == repr(dict(a=0.5, b=[3, "c", True], c="/data/x", d={1: 2}))


@pytest.mark.parametrize(
    "value",
    [np.zeros(2), torch.zeros(2), torch.float16, print, Path, lambda: 1, object(), range(3), 1j, {"a": {1, object()}}],
    ids=range(10),
)
def test_anything_else_is_refused_with_its_place(read_back, value):
    with pytest.raises(ValueError, match=r"a.b\[1\].* in the config is of the type"):
        read_back(dict(a=dict(b=[1, value])))


def test_what_nests_too_deep_to_read_back_is_refused(read_back):
    with pytest.raises(ValueError, match="nested more than 60 levels deep, in a"):
        read_back(dict(a=deep(61)))


def test_imports_are_not_part_of_a_config(tmp_path):
    path = tmp_path / "experiment.py"
    text = "from sys import exit, maxsize, path\nimport time\na = maxsize\nb = len(path)\nc = float('-inf')"
    path.write_text(f"{text}\ndef d(): pass\nclass E: pass\n")
    cfg = load_config(path)
    assert set(cfg) == {"maxsize", "a", "b", "c"}
    cfg.dump(tmp_path / "dumped.py")
    assert load_config(tmp_path / "dumped.py").to_dict() == cfg.to_dict()


def test_a_name_that_python_cannot_have_is_refused(tmp_path):
    for name in ("my-key", "class"):
        (tmp_path / "experiment.json").write_text(json.dumps({name: 1}))
        with pytest.raises(ValueError, match=f"experiment.json: '{name}'"):
            load_config(tmp_path / "experiment.json")


def test_a_value_that_came_later_is_refused_when_it_is_written():
    with pytest.raises(ValueError, match="cannot hold"):
        str(PlainConfig(dict(a=[object()])).pretty_text)
