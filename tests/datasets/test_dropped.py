"""What is broken: raised with its place, or with on_error='skip' counted, logged and left out."""

import json
import re
import traceback
from pathlib import Path

import pytest
from mmengine.logging import MMLogger
from torch.utils.data import DataLoader

from mmgpt.datasets.transforms import FormatPrompt
from mmgpt.registry import PARSERS


class FailsOn:
    """A transform that raises an error for the samples of some ids."""

    def __init__(self, error, *ids):
        self.error, self.ids = error, ids

    def __call__(self, results):
        if results["id"] in self.ids:
            raise self.error("odd")
        return results


def failing(config, error, *ids):
    return config | dict(pipeline=[FailsOn(error, *ids), *config["pipeline"]])


def ids(loaded):
    return [data["meta"]["id"] for data in loaded]


@pytest.fixture
def broken_records(dolly_config):
    """Config of six records, of which the first and the fourth are broken."""
    config = dolly_config(["red"] * 6)
    path = Path(config["ann_file"])
    lines = path.read_text().splitlines()
    lines[0], lines[3] = '{"instruction": "what"}', '"text"'
    path.write_text("\n".join(lines))
    return config


def test_records_that_the_parser_refuses_are_left_out(build, broken_records, logged):
    with pytest.raises(ValueError, match="dataset 'dolly', file .*dolly.jsonl', record 0: no key 'response'"):
        build(broken_records)
    dataset = build(broken_records | dict(on_error="skip"))
    assert ids(dataset) == ["1", "2", "4", "5"]
    assert dataset.dropped.totals["refused"] == 2
    first, second, whole = logged
    assert re.match(r"refused: dataset 'dolly', file .*dolly.jsonl', record 0: no key 'response'", first)
    assert "record 3" in second
    assert "a record must be an object, got 'text'" in second
    assert re.match(r"dataset dolly: 4 of 6 records of .*dolly.jsonl \(2 refused by the parser\)", whole)


def test_no_records_left_is_an_error(build, dolly_config, monkeypatch):
    monkeypatch.setitem(PARSERS.module_dict, "none", lambda record: record["none"])
    with pytest.raises(ValueError, match=r"none of 2 records belongs to dataset 'dolly' \(2 refused by the parser\)"):
        build(dolly_config(["red", "blue"], parser="none", on_error="skip"))


def test_samples_that_cannot_be_read_are_replaced_by_the_next(build, caption_config, tmp_path, logged):
    config = caption_config(4, on_error="skip")
    (tmp_path / "images" / "captions_0.png").unlink()
    (tmp_path / "images" / "captions_2.png").write_bytes(b"no image")
    dataset = build(config)
    assert ids(dataset) == [f"captions_{i}.png" for i in (1, 1, 3, 3)]
    assert dataset.dropped.totals == dict(refused=0, failed=2, skipped=0, cut=0)
    _, missing, damaged = logged[:3]
    for words, line in (("record 0", missing), ("captions_0.png': no such file", missing), ("record 2", damaged)):
        assert line.startswith("failed: dataset 'captions', file ")
        assert words in line
    assert damaged.count("record 2") == 1
    assert "captions_2.png': cannot be read: " in damaged


def test_no_readable_sample_is_an_error(build, caption_config):
    dataset = build(failing(caption_config(2, on_error="skip"), MemoryError, "captions_0.png", "captions_1.png"))
    with pytest.raises(ValueError, match="no sample of dataset 'captions' has anything to learn, or .* see the log"):
        dataset[0]
    assert dataset.dropped.totals["failed"] == 2


@pytest.mark.parametrize(
    ("error", "workers"), [(RuntimeError, 0), (TypeError, 0), (KeyError, 0), (ValueError, 0), (MemoryError, 2)]
)
def test_any_error_names_the_sample(build, caption_config, error, workers):
    dataset = build(failing(caption_config(3), error, "captions_2.png"))
    with pytest.raises(error) as raised:
        list(DataLoader(dataset, batch_size=None, sampler=range(3), num_workers=workers))
    traceback.clear_frames(raised.tb)  # torch's refer to each other, and keep the workers
    said = "\n".join([str(raised.value), *getattr(raised.value, "__notes__", [])])
    place = rf"in dataset 'captions', file '{dataset.ann_file}', record 2, id 'captions_2.png'"
    assert len(re.findall(place, said)) == 1


def test_location_is_in_the_message_once(build, caption_config, tmp_path):
    dataset = build(caption_config(2))
    (tmp_path / "images" / "captions_1.png").unlink()
    with pytest.raises(FileNotFoundError) as raised:
        dataset[1]
    assert "record 1" in str(raised.value)
    assert not hasattr(raised.value, "__notes__")


def test_lengths_of_samples_that_fail(build, dolly_config):
    config = failing(dolly_config(["red"] * 3), RuntimeError, "1")
    with pytest.raises(RuntimeError) as raised:
        build(config).text_length(1)
    assert "record 1, id '1'" in raised.value.__notes__[0]
    dataset = build(config | dict(on_error="skip"))
    lengths = [dataset.text_length(i) for i in range(6)]
    assert lengths[1] == lengths[4] == 0 < lengths[0] == lengths[2]
    assert dataset.dropped.totals["failed"] == 0
    no_prompt = [step for step in dataset.pipeline.transforms if not isinstance(step, FormatPrompt)]
    with pytest.raises(ValueError, match="has no FormatPrompt"):
        build(config | dict(on_error="skip", pipeline=no_prompt)).text_length(0)


def test_workers_log_into_the_file_and_count_together(build, caption_config, tmp_path):
    config = failing(caption_config(6, on_error="skip"), RuntimeError, "captions_1.png", "captions_4.png")
    MMLogger.get_instance("of_this_run", log_file=str(tmp_path / "run.log"))
    dataset = build(config)
    loader = DataLoader(dataset, batch_size=None, sampler=range(6), num_workers=2, persistent_workers=True)
    for epoch in (1, 2):
        assert ids(loader) == [f"captions_{i}.png" for i in (0, 2, 2, 3, 5, 5)]
        assert dataset.dropped.totals["failed"] == 2 * epoch
    log = (tmp_path / "run.log").read_text()
    for record in (1, 4):
        assert f"record {record}, id 'captions_{record}.png': RuntimeError: odd" in log
    del MMLogger._instance_dict["of_this_run"]


@pytest.mark.parametrize("more", [dict(test_mode=True), dict(open_last=True)])
def test_on_error_skip_in_an_evaluation_is_an_error(build, caption_config, steps, more):
    open_last = more.pop("open_last", False)
    config = caption_config(1) | dict(pipeline=steps(16, open_last=open_last)) | more
    assert len(build(config)) == 1
    with pytest.raises(ValueError, match="'captions': on_error='skip' would leave questions out of an evaluation"):
        build(config | dict(on_error="skip"))


def test_unknown_on_error_is_an_error(build, dolly_config):
    with pytest.raises(ValueError, match="on_error='ignore': choose among raise, skip"):
        build(dolly_config(["red"], on_error="ignore"))


def test_on_error_is_passed_on_to_datasets_without_one(build, caption_config, dolly_config):
    own = dolly_config(["red"], name="own", on_error="raise")
    dataset = build(dict(type="JointDataset", visual=[caption_config(1)], language=[own], on_error="skip"))
    assert [part.skip_errors for part in (*dataset.visual, *dataset.language)] == [True, False]


def test_missing_folders_are_logged_when_skipping(build, caption_config, tmp_path, make_images, logged):
    make_images("here/1.png")
    path = tmp_path / "two.json"
    names = ["here/gone.png", "there/0.png", "here/1.png"]
    path.write_text(json.dumps([{"image": name, "caption": "x", "image_id": name} for name in names]))
    config = caption_config(1, ann_file=str(path), data_prefix=dict(img=str(tmp_path / "images")), on_error="skip")
    assert ids(build(config)) == ["here/1.png"] * 3
    assert logged[0].startswith("1 of 2 image folders are missing: dataset 'captions', file ")
    assert "record 1" in logged[0]
    assert "there/0.png" in logged[0]
    with pytest.raises(FileNotFoundError, match="record 0, .*image '.*nowhere/here/gone.png': no such file"):
        build(config | dict(data_prefix=dict(img=str(tmp_path / "nowhere"))))
