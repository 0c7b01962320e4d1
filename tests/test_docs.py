"""README and docs: commands name files and options that exist, and the worked examples are run as a reader would."""

import ast
import re
import shlex
import subprocess
from functools import cache
from importlib import import_module
from pathlib import Path
from shutil import copytree
from typing import NamedTuple

import pytest
from PIL import Image

from mmgpt.cli import load_config
from tests.helpers.scripts import ENVIRONMENT, ROOT, run_script

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES += sorted((ROOT / "projects").glob("*/README.md"))
BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^\1```", re.DOTALL | re.MULTILINE)
SCRIPT = re.compile(r"(?:tools|demo|projects|tests)/[\w/]+\.(?:py|sh)")
# Files that a reader writes.
OWN = re.compile(
    r"configs/mmgpt/(my_photos|my_pair|bird_\w+)\.py|configs/benchmarks/bird_counts\.py|projects/birds/\w+\.py"
)


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
    done = run_script(ROOT / script, *filter(None, [subcommand]), "--help")
    assert done.returncode == 0, done.stderr
    return done.stdout


@every("bash")
def test_commands_name_scripts_configs_and_options_that_exist(page, block):
    for command in commands(block.text):
        if command.count("'") % 2:
            continue  # a text of several lines
        words = shlex.split(command, comments=True)
        scripts = [word for word in words if SCRIPT.fullmatch(word) and not OWN.fullmatch(word)]
        for word in scripts:
            assert (ROOT / word).is_file(), word
        for word in words:
            if re.fullmatch(r"configs/[\w/]+\.py", word) and not OWN.fullmatch(word):
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
    if page.name == "extending.md":
        pytest.skip("loaded with its modules by test_recipes")
    copytree(ROOT / "configs", tmp_path / "configs")
    copytree(ROOT / "projects", tmp_path / "projects")
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
    environment = {**ENVIRONMENT, "PYTHONPATH": str(project)}
    if re.fullmatch(r"python \w[^|&;<>$*\n]*", command):
        script, *arguments = shlex.split(command)[1:]
        done = run_script(project / script, *arguments, cwd=project, input=stdin, environment=environment)
    else:
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
    code = "\n".join(text for text in examples if "openai" not in text and "adapters=" not in text)
    (project / "examples.py").write_text(code)
    assert run(project, "python examples.py").strip()


@pytest.fixture(scope="module")
def birds(project, own_data):
    """The files of docs/extending.md, each with its path in its first line, and their data."""
    folder = project / "data" / "birds"
    (folder / "images").mkdir(parents=True)
    for name in ("0001.jpg", "0007.jpg"):
        Image.new("RGB", (80, 60), "brown").save(folder / "images" / name)
    (folder / "counts.json").write_text('[{"photo": "0001.jpg", "ask": "How many birds are there?", "count": 3}]')
    page = blocks(ROOT / "docs" / "extending.md")
    visdial = next(block.text for block in page if block.language == "json" and "dialogs" in block.text)
    (folder / "visdial.json").write_text(visdial)
    (project / "projects").unlink()
    copytree(ROOT / "projects", project / "projects")
    for block in page:
        if block.language == "python":
            path = project / block.text.splitlines()[0].removeprefix("# ")
            path.parent.mkdir(exist_ok=True)
            path.write_text(block.text)
    return project


BUILD = """
from mmgpt.apis import build_model
from mmgpt.cli import load_config
from mmgpt.registry import DATASETS

for name in ("encoder", "language"):
    flamingo = build_model(load_config(f"configs/mmgpt/bird_{name}.py")).flamingo
    print("built", name, type(flamingo.vision).__name__, type(flamingo.language).__name__)
for name in ("counts", "transform", "augmentation"):
    sample = DATASETS.build(load_config(f"configs/mmgpt/bird_{name}.py").train_dataloader.dataset)[0]
    print("built", name, tuple(sample["pixels"].shape))
template = load_config("configs/mmgpt/bird_template.py").chat_pipeline[1]["template"]
print("built template", template)
"""


def test_recipes_are_built(birds):
    (birds / "build.py").write_text(BUILD)
    lines = [line for line in run(birds, "python build.py").splitlines() if line.startswith("built")]
    assert lines == [
        "built encoder PatchMeans GatedCausalLM",
        "built language OpenCLIPVision CountingLM",
        "built counts (1, 3, 64, 64)",
        "built transform (1, 3, 64, 64)",
        "built augmentation (1, 3, 64, 64)",
        "built template dialogue",
    ]


def test_recipes_run(birds):
    commands_of_page = [
        command
        for block in blocks(ROOT / "docs" / "extending.md")
        if block.language == "bash"
        for command in commands(block.text)
        if command.startswith("python")
    ]
    output = {command: run(birds, command) for command in commands_of_page}
    assert any("off_by_one/accuracy" in text and "birds/words" in text for text in output.values())
    assert "largest gate: " in "".join(path.read_text() for path in birds.glob("work_dirs/bird_hook/*/*.log"))
