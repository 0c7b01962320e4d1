"""tools/analysis_tools/benchmark_data.py: what it measures, not how fast this machine is."""

import re
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from mmengine.logging import MessageHub, MMLogger
from mmengine.visualization import Visualizer
from PIL import Image

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools" / "analysis_tools"))

import benchmark_data  # noqa: E402

from tests.helpers.stub_training import write_config  # noqa: E402


@pytest.fixture
def config(tmp_path, tiny_llama):
    """A config of two training datasets, one of them without images."""
    (tmp_path / "images").mkdir()
    Image.new("RGB", (20, 30), "red").save(tmp_path / "images" / "a.png")
    turns = '"turns": [{"question": "what", "answer": "red"}]'
    (tmp_path / "train.jsonl").write_text(f'{{"images": ["a.png"], {turns}}}\n' * 3)
    (tmp_path / "text.jsonl").write_text(f"{{{turns}}}\n" * 3)
    path = tmp_path / "own.py"
    path.write_text(f"""
_base_ = [{str(ROOT / "configs/_base_/datasets/pipelines.py")!r}, {str(ROOT / "configs/_base_/datasets/own_data.py")!r}]
language_model = {tiny_llama!r}
prepare_images = dict(size=16)
data_root = {str(tmp_path)!r}
own_images = dict(ann_file="train.jsonl", data_prefix=dict(img="images"))
own_text = dict(ann_file="text.jsonl")
train_dataloader = dict(dataset=dict(type="JointDataset", visual=["${{own_images}}"], language=["${{own_text}}"]))
""")
    return path


def row(output, name):
    [line] = [line for line in output.splitlines() if line.startswith(f"│ {name} ")]
    return [cell.strip() for cell in line.split("│")[2:-1]]


def test_a_line_for_each_dataset(config, capsys):
    benchmark_data.main([str(config), "--samples", "4", "--rounds", "2"])
    output = capsys.readouterr().out
    speeds = [float(cell.replace(",", "")) for cell in row(output, "own_images")]
    assert len(speeds) == 6
    assert min(speeds) == speeds[-1] > 0
    assert [cell == "–" for cell in row(output, "own_text")] == [False, True, True, False, False, False]


def test_medians_of_rounds(monkeypatch):
    measured = iter([dict(read=9, decode=9, prepare=9, prompt=9, tokenize=9), *[
        dict(read=1, decode=0, prepare=2, prompt=1, tokenize=seconds) for seconds in (4, 1, 90)
    ]])  # fmt: skip
    asked = []
    take = lambda _, indices, image: asked.append(list(indices)) or next(measured)  # noqa: E731
    monkeypatch.setattr(benchmark_data, "stage_seconds", take)
    speeds = benchmark_data.speeds(range(10), samples=4, rounds=3, image=None)
    # The first round warms up; of the others the medians.
    assert speeds == dict(read=4, decode=None, prepare=2, prompt=4, tokenize=1, all=0.5)
    assert asked[:2] == [[0, 2, 4, 6], [1, 3, 5, 7]]
    assert len(asked) == 4


def test_write_image_has_the_size(config, tmp_path, monkeypatch):
    path = benchmark_data.write_image(tmp_path / "a.jpg", (64, 48))
    assert Image.open(path).size == (64, 48)
    assert Image.open(path).format == "JPEG"
    shown = []
    monkeypatch.setattr(
        benchmark_data, "speed_table", lambda cfg, args, folder: shown.append(args.image_size) or "table"
    )
    benchmark_data.main([str(config), "--image-size", "64x48"])
    assert shown == [(64, 48)]


def test_image_replaces_those_of_samples(config, tmp_path):
    cfg = benchmark_data.load_config(config)
    dataset = benchmark_data.DATASETS.build(cfg.own_images)
    sizes = []
    dataset.pipeline.transforms[1] = lambda info: sizes.append(info["pil"][0].size)
    image = benchmark_data.write_image(tmp_path / "x.jpg", (64, 48))
    benchmark_data.stage_seconds(dataset, range(2), image)
    benchmark_data.stage_seconds(dataset, range(1))
    assert sizes == [(64, 48), (64, 48), (20, 30)]


def test_memory_of_a_large_file(config, capsys):
    benchmark_data.main([str(config), "--records", "9000"])
    output = capsys.readouterr().out
    assert "9,000 records, 2 workers" in output
    values = [line.strip("│ ").split("│")[-1].strip() for line in output.splitlines() if line.startswith("│")]
    assert len(values) == 7
    assert all(re.fullmatch(r"-?\d+(\.\d)? (MB|s)", value) for value in values)
    assert "Samples per second" not in output


def test_waiting_is_a_share_of_the_time_after_the_warm_up():
    warm = benchmark_data.WARM_UP
    times = SimpleNamespace(waiting=[5.0] * warm + [0.001, 0.001, 0.008], total=[9.0] * warm + [0.1, 0.1, 0.3])
    assert [value for _, value in benchmark_data.step_figures(times)] == ["100 ms", "1.0 ms", "2.0%"]


def train(cfg, steps):
    # MMEngine keeps these by config name and second, and would hand on those of the run before.
    for kind in (MMLogger, MessageHub, Visualizer):
        kind._instance_dict.clear()
    return benchmark_data.train(cfg, steps)


def test_training_is_measured_and_leaves_no_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = benchmark_data.load_config(write_config(tmp_path), {"train_dataloader.dataset.seconds": 0.01})
    before = sorted(tmp_path.iterdir())
    times = train(cfg, 4)
    assert len(times.waiting) == len(times.total) == 4
    # Two samples, each of which takes ten milliseconds to read.
    assert all(0.02 <= waiting < total for waiting, total in zip(times.waiting, times.total, strict=True))
    assert sorted(tmp_path.iterdir()) == before
    with pytest.raises(ValueError, match="the config trains for 12 steps only, not 13"):
        train(cfg, 13)


def test_training_is_measured_without_default_hooks(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for hooks in (None, {}):
        cfg = benchmark_data.load_config(write_config(tmp_path))
        cfg.default_hooks = hooks
        assert len(train(cfg, 4).total) == 4
    cfg.pop("default_hooks")
    assert len(train(cfg, 4).total) == 4


def test_mistakes(config, monkeypatch, capsys):
    tool = ROOT / "tools" / "analysis_tools" / "benchmark_data.py"
    monkeypatch.setattr(sys, "argv", [str(tool), str(config), "--rounds", "0"])
    with pytest.raises(SystemExit):
        runpy.run_path(str(tool), run_name="__main__")
    assert "--rounds" in capsys.readouterr().err
