import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from mmgpt.datasets.feature_cache import create_cache
from mmgpt.datasets.transforms import PrepareImages, TokenizeSegments
from mmgpt.models.loss import IGNORE_INDEX
from mmgpt.registry import PARSERS


def same(a, b):
    return torch.equal(a["input_ids"], b["input_ids"]) and a["meta"] == b["meta"]


def test_sample_has_tokens_and_pixels(build, caption_config):
    data = build(caption_config(3))[1]
    assert data["pixels"].shape == (1, 3, 16, 16)
    assert data["source"] == "visual"
    assert data["meta"]["images"] == ["captions_1.png"]
    assert data["meta"]["id"] == "captions_1.png"
    assert data["meta"]["dataset"] == "captions"
    assert data["meta"]["answers"] == ["a red circle", "a circle"]


def test_building_does_not_change_the_config(build, caption_config):
    config = caption_config(2)
    before = copy.deepcopy(config)
    assert same(build(config)[0], build(config)[0])
    assert config == before


def test_randomness_differs_by_epoch_and_index_and_is_reproducible(build, caption_config):
    config = caption_config(4)
    one, two, other = build(config), build(config), build(config | dict(seed=1))
    said = [[one[epoch * 4 + i]["meta"]["answer"] for i in range(4)] for epoch in range(8)]
    assert said == [[two[epoch * 4 + i]["meta"]["answer"] for i in range(4)] for epoch in range(8)]
    assert len({tuple(row) for row in said}) > 2
    assert said != [[other[epoch * 4 + i]["meta"]["answer"] for i in range(4)] for epoch in range(8)]


def test_text_length_is_that_of_the_epoch(build, caption_config):
    dataset = build(caption_config(3))
    for image in (dataset.data_prefix["img"] + f"/captions_{i}.png" for i in range(3)):
        Path(image).write_text("not opened")
    lengths = {dataset.text_length(i) for i in range(30)}
    start = dataset.text_length(0) - len("".join(answer_and_question(dataset, 0)))
    assert lengths == {start + q + a for q in (len("what"), len("what is the")) for a in (8, 12)}


def answer_and_question(dataset, i):
    info = dataset.get_data_info(i)
    for step in dataset.pipeline.transforms[:2]:
        info = step(info)
    return info["turns"][0]["question"], info["turns"][0]["answer"]


def test_text_only_equals_the_text_of_the_full_pipeline(build, caption_config):
    dataset = build(caption_config(3))
    whole = [dataset[i]["input_ids"] for i in range(6)]
    for i in range(3):
        Path(dataset.data_prefix["img"], f"captions_{i}.png").unlink()
    texts = [dataset.text_only(dataset.get_data_info(i), TokenizeSegments)["input_ids"] for i in range(6)]
    assert all(map(torch.equal, texts, whole))


def test_text_length_without_a_prompt_is_an_error(build, caption_config):
    with pytest.raises(ValueError, match="'captions': its pipeline has no FormatPrompt"):
        build(caption_config(1, pipeline=[])).text_length(0)


@pytest.mark.parametrize("serialize_data", [True, False])
def test_iteration_ends_and_does_not_change_the_data(build, caption_config, serialize_data):
    dataset = build(caption_config(3, serialize_data=serialize_data))
    first, again = list(dataset), list(dataset)
    assert len(first) == 3
    assert all(map(same, first, again))
    assert same(dataset[-1], dataset[2])


@pytest.mark.parametrize("workers", [0, 2])
def test_worker_processes_read_the_same_samples(build, caption_config, workers):
    dataset = build(caption_config(5))
    loader = DataLoader(dataset, batch_size=None, sampler=range(15), num_workers=workers)
    assert all(same(a, dataset[i]) for i, a in enumerate(loader))


def test_sample_draws_records_by_seed(build, dolly_config):
    config = dolly_config([f"red {i}" for i in range(20)])
    answers = [[d["meta"]["answer"] for d in build(config | dict(sample=5, seed=seed))] for seed in (0, 0, 1)]
    assert answers[0] == answers[1] != answers[2]
    assert len(set(answers[0])) == 5
    assert len(build(config | dict(sample=50))) == 20


def test_a_list_in_the_pipeline_is_spliced_in(build, dolly_config, steps):
    config = dolly_config(["red"])
    nested = config | dict(pipeline=[dict(type="PickAnswer"), [steps()[0], [steps()[1]]], steps()[2]])
    assert same(build(config)[0], build(nested)[0])


def test_parser_options_choose_a_split(build, tmp_path, steps):
    book = dict(questions=["who"], answers=["me"], filename="a.png")
    path = tmp_path / "books.json"
    path.write_text(json.dumps([book | dict(split=1), book | dict(split=3)]))
    config = dict(type="InstructionDataset", ann_file=str(path), pipeline=[])
    assert len(build(config | dict(parser=dict(type="ocr_vqa", split="test")))) == 1
    with pytest.raises(ValueError, match="books.json: none of 2 records belongs to dataset 'ocr_vqa'"):
        build(config | dict(parser=dict(type="ocr_vqa", split="val")))


def test_each_turn_is_a_sample_of_its_own(build, tmp_path, steps):
    turns = [{"question": f"q{i}", "answer": f"a{i}"} for i in range(3)]
    records = [{"id": name, "images": [], "turns": turns[:count]} for name, count in (("x", 3), ("y", 1))]
    (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, records)))
    config = dict(type="InstructionDataset", parser="conversation", ann_file=str(tmp_path / "own.jsonl"))
    data = build(config | dict(single_turns=True, pipeline=steps(open_last=True)))
    assert [each["meta"]["id"] for each in data] == ["x-0", "x-1", "x-2", "y-0"]
    assert [(each["meta"]["question"], each["meta"]["answer"]) for each in data][1:3] == [("q1", "a1"), ("q2", "a2")]
    assert "q0" not in data[1]["meta"]["prompt"]
    assert len(build(config | dict(single_turns=True, sample=2))) == 2
    assert len(build(config)) == 2


def test_file_of_another_split_is_an_error_with_file_and_record(build, dolly_config):
    with pytest.raises(ValueError, match="'.*dolly.jsonl', record 0: instruction is 'what is 0', but 'x'"):
        build(dolly_config(["a"], expect=dict(instruction="x")))


def test_skipped_and_cut_answers_are_counted_and_logged(build, dolly_config, logged):
    dataset = build(dolly_config(["red", "", "blue " * 60, "red"], max_length=60))
    answers = [data["meta"]["answer"] for data in dataset]
    # The empty answer is replaced by the next sample, whose own answer is cut.
    assert answers[1] == answers[2]
    assert (dataset.dropped.totals["skipped"], dataset.dropped.totals["cut"]) == (1, 2)
    assert all((data["labels"] != -100).any() for data in dataset)
    [skipped] = [line for line in logged if line.startswith("skipped")][:1]
    assert "dataset 'dolly'" in skipped
    assert "dolly.jsonl', record 1, id '1'" in skipped
    assert "empty" in skipped
    [cut] = [line for line in logged if line.startswith("cut")][:1]
    assert "record 2" in cut
    assert "the limit is 60" in cut


def test_a_question_that_fills_the_limit_is_skipped(build, dolly_config, logged):
    dataset = build(dolly_config(["red", "red"], max_length=12))
    with pytest.raises(ValueError, match="no sample of dataset 'dolly' has anything to learn"):
        dataset[0]
    assert dataset.dropped.totals["skipped"] == 2
    assert "tokens of its answers are cut off" in logged[-1]


def test_many_skipped_samples_are_logged_as_a_sum(build, dolly_config, logged):
    dataset = build(dolly_config(["red"] + [""] * 150))
    dataset[1]
    assert dataset.dropped.totals["skipped"] == 150
    summary = [line for line in logged if "so far" in line]
    assert summary == [f"dataset dolly: {count} samples with nothing to learn so far" for count in (10, 100)]
    assert sum(line.startswith("skipped") for line in logged) == 5


def test_nothing_to_learn_in_test_mode_is_an_error(build, dolly_config):
    dataset = build(dolly_config(["red", ""], test_mode=True))
    with pytest.raises(ValueError, match="dolly.jsonl', record 1, id '1': nothing to learn: its answer is empty"):
        dataset[1]


def test_evaluation_prompt_has_no_answer(build, dolly_config, steps):
    data = build(dolly_config(["red"], test_mode=True) | dict(pipeline=steps(open_last=True)))[0]
    assert (data["labels"] == -100).all()
    assert data["meta"]["answer"] == "red"
    assert data["meta"]["prompt"].endswith("### Response:\n")


def test_errors_name_file_record_and_value(build, tmp_path, caption_config):
    path = tmp_path / "bad.json"
    path.write_text(json.dumps([{"image": "a.png", "caption": "x"}, {"image": "b.png", "text": "y", "image_id": "q"}]))
    message = (
        "dataset 'captions', file '.*bad.json', record 1, id 'q': no key 'caption'; keys found: image, text, image_id"
    )
    with pytest.raises(ValueError, match=message):
        build(caption_config(1) | dict(ann_file=str(path)))
    path.write_text(json.dumps([{"conversations": [{"from": "human", "value": "<image> <image>"}], "image": "a.png"}]))
    with pytest.raises(ValueError, match="dataset 'x', file '.*bad.json', record 0: 1 images, but 2 image contents"):
        build(dict(type="InstructionDataset", parser="llava", name="x", ann_file=str(path)))


@pytest.mark.parametrize(
    ("parse", "words"),
    [
        (lambda record: {"images": [], "turns": [{"question": "a"}]}, "id must be a string"),
        (lambda record: record["text"]["no"], "KeyError: 'no'"),
        (lambda record: record["none"].strip(), "AttributeError: 'NoneType' object has no attribute 'strip'"),
        (lambda record: record["list"][0], "IndexError: list index out of range"),
        (lambda record: record["none"]["x"], "TypeError: 'NoneType' object is not subscriptable"),
        (lambda record: [record], "AttributeError: 'list' object"),
    ],
)
def test_failing_parser_is_an_error_with_file_and_record(build, tmp_path, monkeypatch, parse, words):
    (tmp_path / "a.json").write_text(json.dumps([{"id": "q", "text": {}, "none": None, "list": []}]))
    monkeypatch.setitem(PARSERS.module_dict, "own", parse)
    with pytest.raises(ValueError) as raised:
        build(dict(type="InstructionDataset", parser="own", ann_file=str(tmp_path / "a.json")))
    assert f"a.json', record 0, id 'q': {words}" in str(raised.value)


def test_the_first_image_of_each_folder_must_exist(build, caption_config, tmp_path, make_images, steps):
    make_images("here/0.png", "here/2.png")
    path = tmp_path / "two.json"
    names = ["here/0.png", "there/1.png", "here/2.png", "there/3.png", "here/gone.png"]
    path.write_text(json.dumps([{"image": name, "caption": "x", "image_id": name} for name in names]))
    config = caption_config(1, ann_file=str(path), data_prefix=dict(img=str(tmp_path / "images")))
    with pytest.raises(FileNotFoundError) as raised:
        build(config)
    for words in ("dataset 'captions'", "two.json', record 1", "images/there/1.png'", "data_prefix=dict(img="):
        assert words in str(raised.value)
    # Where nothing reads images, as in counting tokens, none are needed.
    assert len(build(config | dict(pipeline=steps()))) == 5
    make_images("there/1.png")
    assert len(build(config)) == 5


def test_record_that_is_not_an_object_is_an_error(build, caption_config, tmp_path):
    (tmp_path / "bad.json").write_text('["text"]')
    with pytest.raises(ValueError, match="bad.json', record 0: a record must be an object, got 'text'"):
        build(caption_config(1) | dict(ann_file=str(tmp_path / "bad.json")))


def test_missing_image_is_an_error_by_default(build, caption_config, tmp_path):
    config = caption_config(2)
    (tmp_path / "images" / "captions_1.png").unlink()
    with pytest.raises(FileNotFoundError, match="captions.json', record 1, .*image '.*captions_1.png': no such file"):
        build(config)[1]
    (tmp_path / "images" / "captions_0.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="captions.json', record 0, .*image '.*captions_0.png': cannot be read"):
        build(config)[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(parser="caption"), "unknown parser 'caption': choose among alpaca, aokvqa"),
        (dict(source="audio"), "source='audio': choose among visual, language"),
        (dict(sample=0), "sample=0: at least one record"),
        (dict(sample=-3), "sample=-3: at least one record"),
        (dict(weight=-0.5), "dataset 'captions': weight=-0.5 must be a number above 0"),
        (dict(weight=0), "weight=0 must be a number above 0 .0 leaves a dataset out of a JointDataset"),
        (dict(weight="1/4"), "weight='1/4' must be a number"),
        (dict(weight=float("inf")), "weight=inf must be a number"),
    ],
)
def test_wrong_arguments(build, caption_config, change, message):
    with pytest.raises(ValueError, match=message):
        build(caption_config(1) | change)


def test_missing_and_empty_annotation_files_are_an_error(build, caption_config, tmp_path):
    with pytest.raises(FileNotFoundError, match="no annotation file '.*absent.json'"):
        build(caption_config(1) | dict(ann_file=str(tmp_path / "absent.json")))
    (tmp_path / "empty.json").write_text("[]")
    with pytest.raises(ValueError, match="empty.json': the annotation file holds no record"):
        build(caption_config(1) | dict(ann_file=str(tmp_path / "empty.json")))


def test_each_sample_has_its_own_random_generator(build, dolly_config):
    dataset = build(dolly_config(["red", "blue"]))
    draws = [dataset.get_data_info(i)["rng"].random() for i in (0, 1, 2, 0)]
    assert draws[0] == draws[3] == np.random.default_rng([0, 0, 0]).random()
    assert len(set(draws)) == 3


def test_text_length_with_cached_features_needs_no_features(build, caption_config, steps, tmp_path):
    images, text = steps(size=16)[:2], steps()
    create_cache(tmp_path / "cache", images, "float16")
    pipeline = [dict(type="LoadFeatures", cache=str(tmp_path / "cache"), steps=images), *text]
    config, plain = caption_config(2, pipeline=pipeline), caption_config(2, pipeline=text)
    # The cache is empty: no features are read.
    assert build(config).text_length(0) == build(plain).text_length(0)
    (tmp_path / "images" / "captions_0.png").unlink()
    with pytest.raises(FileNotFoundError, match="captions.json', record 0, .*image '.*captions_0.png': no such file"):
        len(build(config))


def test_a_conversation_that_the_page_saved_is_trained_on(build, caption_config):
    """Its images are data URIs, and every answer has labels."""
    file = Path(__file__).parents[1] / "data" / "chat_page.json"
    dataset = build(caption_config(1, parser="messages", ann_file=str(file)))
    [sample] = dataset
    prepare, tokenize = (
        next(step for step in dataset.pipeline.transforms if isinstance(step, kind))
        for kind in (PrepareImages, TokenizeSegments)
    )
    assert prepare.restore(sample["pixels"])[0, 5, 5].tolist() == [0, 0, 255]
    label_text = tokenize.tokenizer.decode(sample["labels"][sample["labels"] != IGNORE_INDEX])
    assert "Blue." in label_text
    assert "Yes." in label_text
    assert "Sure?" not in label_text
