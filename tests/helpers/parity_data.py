"""The reference output of the published code, where it is at hand; its MANIFEST.md says what each file holds."""

import json
import os
from pathlib import Path

import pytest

BESIDE = Path(__file__).parents[2] / ".." / "shared" / "parity"
PARITY = Path(os.environ.get("MMGPT_PARITY_DIR", BESIDE)).resolve()
needs_parity = pytest.mark.skipif(not PARITY.is_dir(), reason=f"no published output in {PARITY} (MMGPT_PARITY_DIR)")


def read_json(name: str):
    """One of its files; None where the folder is absent, so that tests can be collected."""
    return json.loads((PARITY / name).read_text()) if PARITY.is_dir() else None
