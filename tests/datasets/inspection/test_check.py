import json
import pickle
import shutil

import pytest
from mmengine.config import ConfigDict
from PIL import Image

from mmgpt.datasets.inspection.check import ERRORS, WARNINGS, check_datasets, images_of, read_datasets
from mmgpt.datasets.inspection.text_checks import CheckedSamples
from mmgpt.registry import PARSERS
from projects.tiny_world.patch_dataset import PatchLabelDataset


def look(workers=1, progress=None, **splits):
    """Figures and findings of a config with these datasets."""
    cfg = ConfigDict({f"{split}_dataloader": dict(batch_size=1, dataset=data) for split, data in splits.items()})
    parts = list(read_datasets(cfg))
    return check_datasets(parts, images_of(parts), workers, progress)


def joint(visual=(), language=(), **more):
    return dict(type="JointDataset", visual=list(visual), language=list(language)) | more


def summary(findings):
    """Kind, record, id and value of findings."""
    return [(found.kind, found.record, found.id, found.value) for found in findings]


@pytest.fixture
def faulty(tmp_path, caption_config, dolly_config):
    """Configs of training and test data with faults of many kinds in them."""
    train = caption_config(6, name="train")
    (tmp_path / "images" / "train_1.png").unlink()
    whole = (tmp_path / "images" / "train_2.png").read_bytes()
    (tmp_path / "images" / "train_2.png").write_bytes(whole[: len(whole) // 2])
    Image.new("L", (9, 90)).save(tmp_path / "images" / "train_3.png")
    text = dolly_config(["red", "", "blue " * 60, "yes", "no"], name="text", max_length=60)
    edit(text, lambda records: [*records[:4], dict(records[4], response=None), "words", records[0]])
    test = caption_config(3, name="test")
    edit(test, lambda records: [*records, dict(records[0], image="train_0.png", caption="one"), train_record(tmp_path)])
    return dict(train=joint([train], [text]), test=test)


def train_record(tmp_path):
    return json.loads((tmp_path / "train.json").read_text())[4]


def edit(config, change):
    """Change the records of a dataset's file."""
    lines = config["ann_file"].endswith(".jsonl")
    with open(config["ann_file"]) as file:
        records = change([json.loads(line) for line in file] if lines else json.load(file))
    with open(config["ann_file"], "w") as file:
        file.write("\n".join(map(json.dumps, records)) if lines else json.dumps(records))


def test_media_marks_in_texts_are_warnings(dolly_config, caplog):
    config = dolly_config(["red", "blue"])
    edit(config, lambda records: [dict(records[0], instruction="<video> What?"), records[1]])
    _, findings = look(train=joint(language=[config]))
    assert summary(findings) == [("unread_mark", 0, "0", "'<video>' is text in a question")]
    assert "unread_mark" in WARNINGS


def test_clean_datasets_have_figures_and_no_findings(build, caption_config, dolly_config):
    visual, text = caption_config(3), dolly_config(["red", "blue square"])
    amounts = []
    figures, findings = look(
        progress=amounts.append, train=joint([visual], [text], seed=5), test=caption_config(2, "held")
    )
    assert findings == []
    assert sum(amounts) == 3 + 2 + 2 + 5
    assert [(each["split"], each["dataset"], each["source"]) for each in figures] == [
        ("train", "captions", "visual"),
        ("train", "dolly", "language"),
        ("test", "held", "visual"),
    ]
    assert [each["samples"] for each in figures] == [each["records"] for each in figures] == [3, 2, 2]
    assert [each["images"] for each in figures] == [3, 0, 2]
    assert figures[0]["image_sizes"] == {"smallest": (40, 32), "largest": (40, 32)}
    assert figures[1]["image_sizes"] is None
    assert figures[1]["findings"] == {}
    # As the first epoch of training has them, the seed of the joint dataset included.
    for each, config in zip(figures, (visual | dict(seed=5), text), strict=False):
        lengths = sorted(len(data["input_ids"]) for data in build(config))
        assert each["tokens"]["max"] == lengths[-1]
        assert each["tokens"]["median"] in lengths
        assert each["tokens"]["limit"] == 400
        assert each["tokens"]["above"] == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_every_fault_is_a_finding_with_its_location(tmp_path, faulty, workers):
    figures, findings = look(workers, **faulty)
    images = tmp_path / "images"
    found = summary(findings)
    assert ("missing_image", 1, "train_1.png", f"{images}/train_1.png: no such file") in found
    [[*place, words]] = [each for each in found if each[0] == "unreadable_image"]
    assert place == ["unreadable_image", 2, "train_2.png"]
    assert words.startswith(f"{images}/train_2.png: ")
    assert ("unusual_image", 3, "train_3.png", f"{images}/train_3.png: 9 x 90 pixels") in found
    assert ("nothing_to_learn", 1, "1", "its answer is empty") in found
    [[*place, words]] = [each for each in found if each[0] == "cut_answer"]
    assert place == ["cut_answer", 2, "2"]
    assert "the limit is 60" in words
    assert ("broken_record", 4, None, "key 'response' must be str, got None") in found
    assert ("broken_record", 5, None, "a record must be an object, got 'words'") in found
    assert ("duplicate", 6, "6", "same images and turns as record 0, id '0'") in found
    other = f"train dataset 'train', {tmp_path}/train.json, record"
    assert ("trained_sample", 4, "train_4.png", f"same as {other} 4, id 'train_4.png'") in found
    for record, name, first in [(3, "test_0.png", 0), (4, "train_4.png", 4)]:
        value = f"{images}/train_{first}.png: also in {other} {first}, id 'train_{first}.png'"
        assert ("trained_image", record, name, value) in found
    assert len(found) == 11
    assert {each[0] for each in found} <= set(ERRORS | WARNINGS)
    assert {(each.split, each.dataset) for each in findings} == {
        ("train", "train"),
        ("train", "text"),
        ("test", "test"),
    }
    assert figures[1]["records"] == 7
    assert figures[1]["samples"] == 5
    assert figures[1]["findings"] == {"broken_record": 2, "nothing_to_learn": 1, "cut_answer": 1, "duplicate": 1}
    assert figures[1]["tokens"]["max"] > 60
    assert figures[1]["tokens"]["above"] == 1 / 5


def test_results_do_not_depend_on_the_number_of_workers(faulty):
    assert look(1, **faulty) == look(2, **faulty)


def test_unreadable_file_stops_only_its_dataset(tmp_path, dolly_config):
    good, broken, empty = (dolly_config(["red"], name=name) for name in ("good", "broken", "empty"))
    good_line = (tmp_path / "broken.jsonl").read_text()
    (tmp_path / "broken.jsonl").write_text(good_line + '\n{"instruction": ')
    (tmp_path / "empty.jsonl").write_text("")
    figures, findings = look(train=joint(language=[broken, empty, good]))
    assert [each["records"] for each in figures] == [1, 0, 1]
    assert figures[0]["tokens"]["max"] is None
    assert [found.dataset for found in findings] == ["broken", "empty"]
    [(kind, record, name, value), (_, _, _, nothing)] = summary(findings)
    assert (kind, record, name) == ("annotation_file", None, None)
    assert value.startswith("not valid JSON: line 2")
    assert nothing == "the annotation file holds no record"


def test_dataset_without_records_is_an_error(dolly_config, monkeypatch):
    monkeypatch.setitem(PARSERS.module_dict, "nothing", lambda record: None)
    _, [found] = look(train=dolly_config(["red", "blue"], parser="nothing"))
    assert summary([found]) == [("annotation_file", None, None, "none of its 2 records belongs to the dataset")]


def test_prompt_above_the_limit_of_an_evaluation_is_an_error(dolly_config, steps):
    config = dolly_config(["red", "red"]) | dict(pipeline=steps(max_length=30, open_last=True))
    edit(config, lambda records: [records[0], dict(records[1], instruction="what " * 40)])
    [figures], findings = look(test=config)
    longest = figures["tokens"]["max"]
    assert summary(findings) == [("broken_record", 1, "1", f"a prompt of {longest} tokens, the limit is 30")]
    assert longest > 30
    assert figures["tokens"]["above"] == 0.5


def test_failing_transform_is_a_broken_record(caption_config, monkeypatch):
    monkeypatch.setattr("mmgpt.datasets.transforms.PickAnswer.__call__", lambda self, results: results["gone"])
    _, findings = look(train=caption_config(1))
    assert summary(findings) == [("broken_record", 0, "captions_0.png", "KeyError: 'gone'")]


def drawn(dataset):
    return [dataset.get_data_info(i)["record"] for i in range(len(dataset))]


def test_texts_are_those_of_drawn_samples_and_images_those_of_all(tmp_path, build, caption_config, steps):
    config = caption_config(6, sample=2)
    [figures], findings = look(train=config)
    assert (figures["records"], figures["samples"], figures["images"], findings) == (6, 2, 6, [])
    left = min(set(range(6)) - set(drawn(build(config))))
    (tmp_path / "images" / f"captions_{left}.png").unlink()
    assert [found.record for found in look(train=config)[1]] == [left]
    shutil.rmtree(tmp_path / "images")
    [figures], findings = look(train=config | dict(pipeline=[dict(type="PickAnswer"), *steps()]))
    assert (figures["images"], findings) == (0, [])


def test_every_record_of_a_missing_image_is_named(tmp_path, caption_config):
    config = caption_config(2)
    edit(config, lambda records: [records[0], dict(records[1], image="captions_0.png")])
    (tmp_path / "images" / "captions_0.png").unlink()
    [figures], findings = look(train=config)
    missing = [found.record for found in findings if found.kind == "missing_image"]
    assert missing == [0, 1]
    assert figures["images"] == 1


def test_wrapped_datasets_are_checked(caption_config):
    control = dict(type="ImageControl", kind="zero", dataset=caption_config(2, "inner"))
    both = dict(type="ConcatDataset", datasets=[caption_config(1, "one"), caption_config(1, "two")])
    figures, _ = look(val=control, test=both)
    assert [(each["split"], each["dataset"]) for each in figures] == [
        ("val", "inner"),
        ("test", "one"),
        ("test", "two"),
    ]


def test_datasets_of_other_types_are_refused(caption_config):
    with pytest.raises(ValueError, match="'PatchLabelDataset' cannot be checked, only InstructionDataset"):
        look(train=dict(type=PatchLabelDataset.__name__, classes={}, split="train"))
    with pytest.raises(ValueError, match="'captions': its pipeline has no TokenizeSegments"):
        look(train=caption_config(1, pipeline=[]))
    with pytest.raises(ValueError, match="source='visual', but is listed under 'language'"):
        look(train=joint(language=[caption_config(1)]))
    with pytest.raises(KeyError, match="JointDatset is not in the"):
        look(train=joint([caption_config(1)]) | dict(type="JointDatset"))


def test_datasets_with_weight_0_are_not_checked(caption_config):
    absent = dict(caption_config(1), name="absent", weight=0, ann_file="absent.json")
    figures, findings = look(train=joint([caption_config(2, weight=3), absent]))
    assert [(row["dataset"], row["samples"]) for row in figures] == [("captions", 2)]
    assert not findings


def test_byte_order_mark_is_a_warning(tmp_path, dolly_config):
    config = dolly_config(["red", "blue"])
    (tmp_path / "dolly.jsonl").write_bytes(b"\xef\xbb\xbf" + (tmp_path / "dolly.jsonl").read_bytes())
    words = "begins with a byte order mark, which is skipped"
    assert summary(look(train=config)[1]) == [("unusual_file", None, None, words)]


def test_byte_order_mark_of_the_questions_is_a_warning(tmp_path, dolly_config):
    answers = {"question_id": 1, "context": "", "response": "red"}
    config = dolly_config([]) | dict(data_prefix=dict(questions=str(tmp_path / "questions.json")))
    (tmp_path / "dolly.jsonl").write_text(json.dumps(answers))
    questions = json.dumps([{"question_id": 1, "instruction": "a"}])
    (tmp_path / "questions.json").write_text(questions, encoding="utf-8-sig")
    words = f"{tmp_path}/questions.json: begins with a byte order mark, which is skipped"
    assert summary(look(train=config)[1]) == [("unusual_file", None, None, words)]


def test_checks_can_be_pickled(caption_config):
    """Where processes are not forked (macOS, Windows), they get copies."""
    [part] = read_datasets(dict(train_dataloader=dict(dataset=caption_config(2))))
    texts = CheckedSamples(part.dataset, part.samples)
    assert list(pickle.loads(pickle.dumps(texts))) == list(texts)
