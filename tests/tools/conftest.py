"""What tests of the tools share."""

import pytest

from tests.helpers.converting import CONVERTERS, samples


@pytest.fixture
def convert(tmp_path, monkeypatch):
    """A function that runs the tool and returns the samples that it wrote."""
    monkeypatch.syspath_prepend(CONVERTERS)
    monkeypatch.chdir(tmp_path)

    def run(layout, *arguments, out="out/train.jsonl"):
        import convert

        convert.main([layout, *map(str, arguments), "--out", out])
        return samples(out)

    return run
