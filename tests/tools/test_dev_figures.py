"""tools/dev/figures.py: figures of the code's shape."""

import runpy
from pathlib import Path

TOOL = runpy.run_path(str(Path(__file__).parents[2] / "tools" / "dev" / "figures.py"))


def test_shape_of_a_package(tmp_path):
    (tmp_path / "a.py").write_text("def _once():\n    return 1\n\n\ndef public():\n    return _once() + _twice()\n")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.py").write_text(
        "class C:\n    def __len__(self):\n        return 0\n\n    def _never(self): ...\n"
    )
    figures = TOOL["shape"](tmp_path)
    assert figures["files"] == 2
    assert figures["lines"] == 11
    assert figures["functions"] == 4
    assert figures["private functions"] == 2
    assert figures["private functions with one caller"] == 1
    assert figures["file names used more than once"] == 1


def test_a_function_that_is_passed_on_counts_as_called():
    tree = TOOL["ast"].parse("x = map(_f, [1])\ny = self._f(2)\n")
    assert TOOL["uses"](tree)["_f"] == 2
