"""The annotation files that the published code was run on, where they are at hand."""

import pytest

from mmgpt.datasets.conversation import check_sample, place_images
from mmgpt.datasets.prompts import TEMPLATES, format_turns, prompt_text
from mmgpt.datasets.records import find_parser, read_records

from ...parity_data import PARITY, needs_parity, read_json

DATASETS = PARITY / "datasets"
FILES = {
    "aokvqa": ("aokvqa", "aokvqa/annotations/aokvqa_v1p0_train.json", "aokvqa/images"),
    "coco_caption": ("coco_caption", "coco_caption/annotations/coco_karpathy_train_converted.json", "coco_caption"),
    "coco_caption val": ("coco_caption", "coco_caption/annotations/coco_karpathy_val.json", "coco_caption"),
    "ocr_vqa": ("ocr_vqa", "ocr_vqa/downloaded_dataset.json", "ocr_vqa/image"),
    "llava": ("llava", "llava/detail_23k.json", "llava/train2017"),
    "llava_dial": ("llava", "llava_dial/conversation_58k.json", "llava_dial/train2017"),
    "minigpt4": ("minigpt4", "minigpt4/filter_cap.json", "minigpt4/image"),
    "dolly": ("dolly", "dolly/databricks-dolly-15k.jsonl", ""),
    "alpaca_gpt4": ("alpaca", "alpaca_gpt4/alpaca_gpt4_data.json", ""),
    "baize": ("baize", "baize/quora_chat_data.json", ""),
}


def samples(name):
    parser, file, images = FILES[name]
    return [check_sample(find_parser(parser)(record)) for record in read_records(DATASETS / file)], DATASETS / images


@needs_parity
@pytest.mark.parametrize("name", FILES)
def test_every_record_is_read_and_its_images_exist(name):
    read, folder = samples(name)
    assert read and all((folder / image).is_file() for sample in read for image in sample["images"])


@needs_parity
@pytest.mark.parametrize("name", ["dolly", "alpaca_gpt4"])
def test_prompts_and_answers_are_the_published_ones(name):
    expected = [item for item in read_json(f"datasets/{name}/expected.json")["items"] if not item["seed"]]
    for sample, item in zip(samples(name)[0], expected, strict=True):
        prompt = prompt_text(format_turns(TEMPLATES["instruction"], sample["turns"], open_last=True))
        assert (prompt, sample["turns"][0]["answer"]) == (item["instruction"], item["answer"])


@needs_parity
def test_visual_prompts_are_the_published_ones():
    expected = read_json("datasets/llava/expected.json")["items"]
    for sample, item in zip(samples("llava")[0][:2], expected, strict=False):
        turns = place_images(sample["turns"], len(sample["images"]))
        assert prompt_text(format_turns(TEMPLATES["instruction"], turns, open_last=True)) == item["instruction"]
        assert turns[0]["answer"] == item["answer"]


@needs_parity
def test_baize_keeps_the_turn_that_the_published_code_drops():
    assert [len(sample["turns"]) for sample in samples("baize")[0]] == [2, 3, 1, 1]
