"""tools/dev/check_export.py: its conversations, and its environment without mmgpt (tests/hf compares models)."""

import random
import runpy
import subprocess
from pathlib import Path

import torch

TOOL = runpy.run_path(str(Path(__file__).parents[2] / "tools" / "dev" / "check_export.py"))


def test_conversations_have_all_numbers_of_images_and_turns(tmp_path):
    rng = random.Random(0)
    made = [TOOL["conversation"](TOOL["some_messages"](rng, number, tmp_path)) for number in range(6)]
    assert [len(conversation.images) for conversation in made] == [0, 1, 2, 0, 1, 2]
    assert [len(conversation.turns) for conversation in made] == [1, 2, 1, 2, 1, 2]
    assert all("answer" in turn for conversation in made for turn in conversation.turns[:-1])
    assert not any("answer" in conversation.turns[-1] for conversation in made)


def test_the_environment_has_transformers_and_no_mmgpt(tmp_path):
    python = TOOL["make_environment"](tmp_path / "venv")
    names = ("torch", "transformers", "mmgpt", "mmengine")
    code = f"import importlib.util as u; print([u.find_spec(name) is not None for name in {names}])"
    output = subprocess.run([python, "-c", code], cwd=tmp_path, env={}, capture_output=True, text=True, check=True)
    assert output.stdout.strip() == "[True, True, False, False]"


def test_differences_are_relative_to_large_values():
    assert TOOL["difference"](torch.tensor([99.0, 1.0]), torch.tensor([100.0, 1.0])) == torch.tensor(0.01).item()
    assert TOOL["difference"](torch.tensor([0.25]), torch.tensor([0.5])) == 0.25
    assert TOOL["difference"](torch.zeros(2), torch.zeros(3)) == float("inf")
