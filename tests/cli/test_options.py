"""What --cfg-options reads: MMEngine's notation, with blanks, and commas within quotes."""

import argparse
from pathlib import Path

import pytest
from mmengine.config import DictAction

from mmgpt.cli.options import add_cfg_options, parse_value

ROOT = Path(__file__).parents[2]
AS_BEFORE = r"""
1 -1 1e-5 1_000 007 inf 0x10 true False TRUE None none text 'text' "text" a=b=c don't a.b /data/x C:\data\new
1,2,3 a,b a, [1] [1,2] [a,1.5,None] (1,2) (1) (1,) () [] [(1,2),[a,b],c] [[1],[2,[3]]] (a,(b,c)) ['a','b'] a,,b ,a
${name} .*\.(q|v)_proj (q|v)_proj$ [a-z]+ {question} x) a(b it's 'it's' [a,[b]] a[0] lambda:0 https://a.b/c?d=e&f
"""


def parsed(*pairs):
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_cfg_options(parser)
    return parser.parse_args(["--cfg-options", *pairs]).cfg_options


@pytest.mark.parametrize("text", ["", *AS_BEFORE.split()])
def test_a_value_without_blanks_is_what_dict_action_reads(text):
    assert repr(parse_value(text)) == repr(DictAction._parse_iterable(text))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("/data/My Data (old)", "/data/My Data (old)"),
        ("'/data/a, b (c)'", "/data/a, b (c)"),
        ('"a, b"', "a, b"),
        (" a b ", "a b"),
        ("' a '", " a "),
        ("a b, c", ["a b", "c"]),
        ("[a b, 'c, d', 1 ]", ["a b", "c, d", 1]),
        ("('a, b',)", ("a, b",)),
        ("[ (1, 2), [a b, c], ]", [(1, 2), ["a b", "c"]]),
        ("[1,2],[3,4]", [[1, 2], [3, 4]]),
        ("(0.9, 0.95)", (0.9, 0.95)),
        ("'1'", "1"),
        ("'[1,2]'", "[1,2]"),
        (r"'C:\new data\table'", r"C:\new data\table"),
        ("C:\\new data\\", "C:\\new data\\"),
        ("{'a': 1}", {"a": 1}),
        ('{"a b": [1, "x, y"], "c": {"d": true}, \'e\': None}', {"a b": [1, "x, y"], "c": {"d": True}, "e": None}),
        ("{'a': 'b: c, d', 'e': f}", {"a": "b: c, d", "e": "f"}),
        ("[dict, {'type': 'A'}]", ["dict", {"type": "A"}]),
        ("{}", {}),
        ("{question} is: {x}", "{question} is: {x}"),
        ("x=(1,2)", "x=(1,2)"),
        ("'it's so, and so'", "it's so, and so"),
        ("don't, can't", ["don't", "can't"]),
    ],
)
def test_blanks_and_commas_within_quotes_are_kept(text, value):
    ours = parse_value(text)
    assert ours == value
    assert type(ours) is type(value)


def test_pairs_of_several_options_are_merged():
    assert parsed("a.b=1", "a.c=x=y z", "d=", "e =' '") == {"a.b": 1, "a.c": "x=y z", "d": "", "e": " "}
    parser = argparse.ArgumentParser()
    add_cfg_options(parser)
    assert parser.parse_args(["--cfg-options", "a=1", "--cfg-options", "b=2"]).cfg_options == {"a": 1, "b": 2}
    assert parser.parse_args([]).cfg_options is None


@pytest.mark.parametrize(
    ("pair", "word"),
    [
        ("name=[1, 2", "] is missing"),
        ("name=(1,[2)", "too many"),
        ("name=a), b", "too many"),
        ("name='a, b", "' is missing"),
        ('name="a', '" is missing'),
        ("name=['a, b]", "' is missing"),
        ("name={'a': 1", "} is missing"),
        ("name={'a': 1, b}", "'key': value"),
        ("name", "NAME=VALUE"),
        ("=1", "NAME=VALUE"),
        ("name=" + "[" * 5000 + "]" * 5000, "recursion"),
    ],
)
def test_invalid_values_are_refused_by_name(pair, word):
    with pytest.raises(argparse.ArgumentError, match="--cfg-options") as raised:
        parsed(pair)
    assert word in str(raised.value)
    assert pair[:20] in str(raised.value)


def test_no_tool_reads_options_in_another_way():
    sources = [path for folder in ("mmgpt", "tools", "demo") for path in (ROOT / folder).rglob("*.py")]
    assert len(sources) > 100
    assert not [path for path in sources if "action=DictAction" in path.read_text()]
