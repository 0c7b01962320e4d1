"""What is imported before there is need of it: it takes seconds."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import mmgpt.apis
import mmgpt.models.vision

ROOT = Path(__file__).parents[1]
HEAVY = {"torch", "transformers", "peft", "mmcv", "mmengine.runner", "open_clip", "gradio", "fastapi", "cv2", "sklearn"}
TOOLS = ["tools/train.py", "tools/test.py", "tools/serve.py", "demo/chat.py", "demo/gradio_demo.py"]
# At its end, a process prints which of them it has imported.
TELL = "import atexit, sys; atexit.register(lambda: print('imported', sorted({heavy} & set(sys.modules))));"
RUN = "import runpy; sys.argv = {argv}; runpy.run_path(sys.argv[0], run_name='__main__')"


def ended(code):
    """A new process with that code, after its end."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", TELL.format(heavy=HEAVY) + code]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def test_the_package_alone():
    assert ended("import mmgpt, mmgpt.apis, mmgpt.engine, mmgpt.cli.tool").stdout == "imported []\n"


@pytest.mark.parametrize("tool", TOOLS)
def test_help(tool):
    process = ended(RUN.format(argv=[tool, "--help"]))
    assert process.returncode == 0, process.stderr
    assert process.stdout.startswith("usage:"), process.stderr
    assert process.stdout.endswith("imported []\n")


@pytest.mark.parametrize("tool", ["tools/train.py", "tools/test.py", "demo/chat.py"])
def test_a_wrong_path(tool):
    process = ended(RUN.format(argv=[tool, "configs/mmgpt/tiny_lora_joined.py"]))
    assert process.returncode == 1
    assert "did you mean 'tiny_lora_joint.py'?" in process.stderr
    assert process.stdout == "imported []\n"


@pytest.mark.parametrize(
    "code",
    [
        "from mmgpt.apis import Chat",
        "from mmgpt.utils.imports import heavy_imports\nwith heavy_imports(): import mmgpt.engine.runner\n0",
    ],
)
def test_a_chat_and_a_training_do_without_scikit_learn(code):
    check = "from transformers import GenerationMixin; from transformers.utils import is_sklearn_available"
    process = ended(f"{code}; {check}; assert is_sklearn_available()")
    assert process.returncode == 0, process.stderr
    assert "transformers" in process.stdout
    assert "sklearn" not in process.stdout


def test_a_chat_does_without_what_trains():
    process = ended("from mmgpt.apis import Chat")
    assert process.returncode == 0, process.stderr
    assert not {name for name in ("mmengine.runner", "cv2") if name in process.stdout}


def test_the_data_does_without_the_model():
    model = {"mmgpt.models.flamingo", "mmgpt.models.vision.huggingface", "transformers.generation.utils"}
    process = ended(f"import mmgpt.datasets; assert not {model} & sys.modules.keys()")
    assert process.returncode == 0, process.stderr


def test_a_table_is_converted_without_what_trains(tmp_path):
    (tmp_path / "table.csv").write_text("question,answer\nIs it red?,no\n")
    files = [str(tmp_path / "table.csv"), "--out", str(tmp_path / "table.jsonl")]
    code = RUN.format(argv=["tools/dataset_converters/convert.py", "csv", *files])
    process = ended(f"import sys; sys.path.insert(0, 'tools/dataset_converters'); {code}")
    assert process.returncode == 0, process.stderr
    imported = process.stdout.splitlines()[-1]
    assert not {name for name in ("peft", "mmengine.runner", "sklearn") if name in imported}


@pytest.mark.parametrize("package", [mmgpt.apis, mmgpt.models, mmgpt.models.vision], ids=lambda it: it.__name__)
def test_all_is_imported_when_it_is_asked_for(package):
    assert [getattr(package, name).__name__ for name in package.__all__] == package.__all__
    with pytest.raises(AttributeError, match=f"module '{package.__name__}' has no attribute 'Chatter'"):
        _ = package.Chatter


def test_a_name_of_the_last_release_is_accepted_with_a_warning():
    with pytest.warns(FutureWarning, match="mmgpt.apis.read_picture is called read_image now"):
        assert mmgpt.apis.read_picture is mmgpt.apis.read_image
    with pytest.warns(FutureWarning, match="Conversation.asked is called Conversation.with_question now"):
        assert mmgpt.apis.Conversation().asked("what?") == mmgpt.apis.Conversation().with_question("what?")
