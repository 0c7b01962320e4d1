"""README and docs: commands name files and options that exist, and the worked examples are run as a reader would."""

import ast
import os
import re
import shlex
import subprocess
import sys
from functools import cache
from importlib import import_module
from pathlib import Path
from shutil import copytree
from typing import NamedTuple

import pytest

from mmgpt.cli import load_config

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES += sorted((ROOT / "projects").glob("*/README.md"))
BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^\1```", re.DOTALL | re.MULTILINE)
SCRIPT = re.compile(r"(?:tools|demo|projects|tests)/[\w/]+\.(?:py|sh)")
# Configs that a reader writes.
OWN = {"configs/mmgpt/my_photos.py"}


class Block(NamedTuple):
    """A fenced block of a page: its language, its text without indentation, and the line where it begins."""

    language: str
    text: str
    line: int


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    found = []
    for match in BLOCK.finditer(text):
        body = re.sub(rf"^{match[1]}", "", match[3], flags=re.MULTILINE)
        found.append(Block(match[2], body, text[: match.start()].count("\n") + 1))
    return found


def every(*languages: str):
    """Parameters of a test: each block of these languages in any page."""
    found = [(page, block) for page in PAGES for block in blocks(page) if block.language in languages]
    return pytest.mark.parametrize(
        "page, block", found, ids=[f"{page.relative_to(ROOT)}:{block.line}" for page, block in found]
    )


def commands(text: str) -> list[str]:
    """The command lines of a block, continued lines joined, here-documents and comments left out."""
    text = re.sub(r"<<'?(\w+)'?\n.*?^\1$", "", text, flags=re.DOTALL | re.MULTILINE).replace("\\\n", " ")
    return [line for line in map(str.strip, text.splitlines()) if line and not line.startswith("#")]


@cache
def help_of(script: str, subcommand: str = "") -> str:
    """What a tool of this project prints for --help."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, script, *filter(None, [subcommand]), "--help"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@every("bash")
def test_commands_name_scripts_configs_and_options_that_exist(page, block):
    for command in commands(block.text):
        if command.count("'") % 2:
            continue  # a text of several lines
        words = shlex.split(command, comments=True)
        scripts = [word for word in words if SCRIPT.fullmatch(word)]
        for word in scripts:
            assert (ROOT / word).is_file(), word
        for word in words:
            if re.fullmatch(r"configs/[\w/]+\.py", word) and word not in OWN:
                assert (ROOT / word).is_file(), word
        if not scripts or not scripts[0].endswith(".py") or "my_" in command:
            continue
        script, rest = scripts[0], words[words.index(scripts[0]) + 1 :]
        has_subcommands = re.search(r"^usage: .* [A-Z]+ \.\.\.$", help_of(script), re.MULTILINE)
        subcommand = rest[0] if has_subcommands else ""
        options = [word.partition("=")[0] for word in rest if word.startswith("--")]
        for option in options:
            assert option in help_of(script, subcommand) or option in help_of(script), f"{command}: {option}"


@every("python")
def test_python_is_python_and_imports_what_exists(page, block):
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mmgpt"):
            try:
                module = import_module(node.module)
            except ModuleNotFoundError as error:
                pytest.skip(f"{error.name} is not installed")
            for alias in node.names:
                assert hasattr(module, alias.name), ast.unparse(node)


@every("python")
def test_configs_are_loaded(page, block, tmp_path):
    if "_base_ = " not in block.text:
        pytest.skip("not a config")
    copytree(ROOT / "configs", tmp_path / "configs")
    config = tmp_path / "configs" / "mmgpt" / "from_the_page.py"
    config.write_text(re.sub(r"\"\./configs/", '"../', block.text))
    load_config(config)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A checkout without data, in which commands of the pages are run."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("mmgpt", "tools", "demo", "projects", "checkpoints", "tests", "benchmarks"):
        if (ROOT / name).exists():
            (folder / name).symlink_to(ROOT / name)
    copytree(ROOT / "configs", folder / "configs")
    return folder


def run(project: Path, command: str, stdin: str = "") -> str:
    environment = {
        **os.environ,
        "PYTHONPATH": str(project),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    options = dict(cwd=project, env=environment, input=stdin, capture_output=True, text=True, timeout=300)
    done = subprocess.run(["bash", "-ec", command], **options)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def own_data(project):
    """The worked example of docs/data.md, with one epoch of training instead of twenty: its output by command."""
    page = ROOT / "docs" / "data.md"
    text = page.read_text()
    start, end = text.index("## Own data in ten minutes"), text.index("## Converting other layouts")
    first, last = text[:start].count("\n"), text[:end].count("\n")
    output = {}
    tiny = next(word for word in re.findall(r"`(python projects/tiny_world/generate\.py [^`]*)`", text))
    run(project, tiny)
    for block in blocks(page):
        if not first < block.line < last:
            continue
        if block.language == "python":
            (project / "configs" / "mmgpt" / "my_photos.py").write_text(block.text)
        elif block.language == "bash" and "<<" in block.text:
            run(project, block.text)
        elif block.language == "bash":
            for command in commands(block.text):
                if "tools/train.py" in command:
                    command += " --cfg-options max_epochs=1 warmup_iters=0 train_dataloader.num_workers=0"
                output[command.split()[1]] = run(project, command, stdin="What colour is it?\n")
    return output


def test_own_data_in_ten_minutes(own_data, project):
    assert len((project / "data/photos/train.jsonl").read_text().splitlines()) == 16
    assert len((project / "data/photos/val.jsonl").read_text().splitlines()) == 4
    assert (project / "work_dirs/my_photos/latest.pth").is_file()
    assert "accuracy" in own_data["tools/test.py"].lower()
    assert own_data["demo/chat.py"].strip()


def test_python_of_the_chat_page_runs(own_data, project):
    """The Python examples of docs/chat.md, one after the other, with the model of the worked example."""
    (project / "work_dirs/quickstart").mkdir(parents=True)
    (project / "work_dirs/quickstart/latest.pth").symlink_to(project / "work_dirs/my_photos/latest.pth")
    examples = [block.text for block in blocks(ROOT / "docs" / "chat.md") if block.language == "python"]
    code = "\n".join(text for text in examples if "openai" not in text)
    (project / "examples.py").write_text(code)
    assert run(project, "python examples.py").strip()
