"""Tests against the output of the published code. All sizes, names and cases come from its folder (`parity_data`)."""

from pathlib import Path

import pytest

from mmgpt.cli.config import load_config
from tests.helpers.parity_data import PARITY, needs_parity, read_json

PIPELINES = Path(__file__).parents[2] / "configs" / "_base_" / "datasets" / "pipelines.py"


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            # In front of pytest's own skip of a test without cases: this one says why there are none.
            item.add_marker(needs_parity, append=False)


@pytest.fixture(scope="session")
def pipelines(tmp_path_factory):
    """The config of the pipelines, set as the published weights need it."""
    [tower] = PARITY.glob("clip/*.json")
    values = {
        "_base_": str(PIPELINES),
        "language_model": str(PARITY / "llama"),
        "image_size": read_json(tower)["vision_cfg"]["image_size"],
        "tokenization": "stripped",
    }
    path = tmp_path_factory.mktemp("config") / "published.py"
    path.write_text("\n".join(f"{name} = {value!r}" for name, value in values.items()))
    return load_config(path)
