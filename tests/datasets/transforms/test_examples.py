import json
import os

import numpy as np
import pytest
from safetensors.numpy import save_file

from mmgpt.datasets.transforms import AddExamples, FormatPrompt
from mmgpt.registry import DATASETS

COUNT = 6


@pytest.fixture
def support(tmp_path):
    """Config of questions about six pictures (which need not be there), and a function that gives a sample of it."""
    records = [
        {"id": f"s{i}", "images": [f"{i}.png"], "turns": [{"question": f"what is {i}", "answer": f"no {i}"}]}
        for i in range(COUNT)
    ]
    (tmp_path / "support.jsonl").write_text("\n".join(map(json.dumps, records)))
    config = dict(type="InstructionDataset", parser="conversation", name="support", data_root=str(tmp_path))
    config |= dict(ann_file="support.jsonl", data_prefix=dict(img="images"), pipeline=[])

    def sample(i, seed=0):
        return DATASETS.build(dict(config, seed=seed)).get_data_info(i)

    return config, sample


def test_examples_precede_the_question_with_their_images(support):
    config, sample = support
    out = FormatPrompt("openflamingo_vqa", open_last=True)(AddExamples(config, shots=3)(sample(2)))
    assert len(out["examples"]) == 3 == len(set(out["examples"]))
    assert "s2" not in out["examples"]
    numbers = [int(name[1:]) for name in out["examples"]]
    folder = os.path.join(os.path.realpath(config["data_root"]), "images")
    assert out["images"] == [*(os.path.join(folder, f"{i}.png") for i in numbers), "2.png"]
    assert out["own_images"] == ["2.png"]
    shown = "".join(f"<image>Question:what is {i} Short answer:no {i}<|endofchunk|>" for i in numbers)
    assert out["prompt"] == shown + "<image>Question:what is 2 Short answer:"
    assert (out["question"], out["answer"]) == ("what is 2", "no 2")


def test_examples_are_drawn_by_the_seed(support):
    config, sample = support
    add = AddExamples(config, shots=2)
    drawn = {tuple(add(sample(0, seed))["examples"]) for seed in range(20)}
    assert len(drawn) > 8
    assert add(sample(0, 3))["examples"] == add(sample(0, 3))["examples"] != add(sample(1, 3))["examples"]


def test_examples_without_images(support):
    config, sample = support
    out = FormatPrompt("openflamingo_vqa", open_last=True)(AddExamples(config, shots=2, images=False)(sample(2)))
    assert out["images"] == ["2.png"]
    assert len(out["examples"]) == 2
    assert out["prompt"].count("<image>") == 1
    assert out["prompt"].count("Short answer:") == 3


def test_zero_shots_read_no_data(support):
    _, sample = support
    out = AddExamples(dict(type="InstructionDataset", ann_file="absent.json"), shots=0)(sample(1))
    assert out["images"] == ["1.png"]
    assert out["examples"] == []
    assert len(out["turns"]) == 1


def test_similar_images_come_last(support, tmp_path):
    config, sample = support
    angles = np.array([0.0, 0.1, 0.3, 0.6, 1.0, 1.5])
    features = np.stack((np.cos(angles), np.sin(angles)), 1) * np.arange(1, 7)[:, None]
    images = [os.path.realpath(os.path.join(config["data_root"], "images", f"{i}.png")) for i in range(COUNT)]
    save_file({"features": features.astype(np.float32)}, tmp_path / "f.safetensors", {"images": json.dumps(images)})
    add = AddExamples(config, shots=3, similar=str(tmp_path / "f.safetensors"))
    assert add(sample(1))["examples"] == ["s3", "s2", "s0"]
    assert add(sample(5))["examples"] == ["s2", "s3", "s4"]
    with pytest.raises(ValueError, match="has no features of the image .*9.png.* make it again"):
        add(dict(sample(1), images=["9.png"]))


def test_too_few_examples_are_an_error(support):
    config, sample = support
    assert len(AddExamples(config, shots=5)(sample(1))["examples"]) == 5
    with pytest.raises(ValueError, match="id 's1': 5 examples of other images among the 6 samples .* shots=6"):
        AddExamples(config, shots=6)(sample(1))
    with pytest.raises(ValueError, match="shots=-1"):
        AddExamples(config, shots=-1)


def test_example_without_an_answer_is_an_error(support, tmp_path):
    config, sample = support
    lines = (tmp_path / "support.jsonl").read_text().replace('"answer"', '"context"')
    (tmp_path / "open.jsonl").write_text(lines)
    with pytest.raises(ValueError, match="dataset 'support', .*an example needs an answer"):
        AddExamples(dict(config, ann_file="open.jsonl"), shots=1)(sample(1))
