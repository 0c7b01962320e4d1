"""The annotation files that the published code was run on, where they are at hand, and what it made of them.

Tests named `test_published_...` are of its defects: what ours does instead.
"""

import copy
import re

import numpy as np
import pytest

from mmgpt.datasets.conversation import check_sample, place_images, question_text
from mmgpt.datasets.prompts import TEMPLATES, format_turns
from mmgpt.datasets.records import find_parser, read_records
from mmgpt.datasets.segments import prompt_text
from mmgpt.datasets.transforms import AddQuestion, GiveReason, OfferOptions
from tests.helpers.parity_data import PARITY, needs_parity, read_json

DATASETS = PARITY / "datasets"
# The published datasets, each with its parser, annotation files and image folder.
FILES = {
    "vqa": ("vqa", ["vqa/vqa_train.json"], "vqa/coco"),
    "aokvqa": ("aokvqa", ["aokvqa/annotations/aokvqa_v1p0_train.json"], "aokvqa/images"),
    "coco_caption": (
        "coco_caption",
        [f"coco_caption/annotations/coco_karpathy_{part}.json" for part in ("train_converted", "val")],
        "coco_caption",
    ),
    "ocr_vqa": ("ocr_vqa", ["ocr_vqa/downloaded_dataset.json"], "ocr_vqa/image"),
    "llava": ("llava", ["llava/detail_23k.json"], "llava/train2017"),
    "llava_dial": ("llava", ["llava_dial/conversation_58k.json"], "llava_dial/train2017"),
    "minigpt4": ("minigpt4", ["minigpt4/filter_cap.json"], "minigpt4/image"),
    "text_ocr": (
        {"type": "vqa", "image": "{image_id}.jpg"},
        ["text_ocr/TextVQA_0.5.1_train.json"],
        "text_ocr/train_images",
    ),
    "clevr": (
        {"type": "vqa", "image": "{split}/{image_filename}"},
        ["clevr/questions/CLEVR_train_questions.json"],
        "clevr/images",
    ),
    "gqa": (
        {"type": "vqa", "image": "{imageId}.jpg", "answer": "fullAnswer"},
        ["gqa/questions/val_all_questions.json"],
        "gqa/images",
    ),
    "nlvrv1": ({"type": "nlvr", "split": "train"}, ["nlvrv1/train/train.json"], "nlvrv1/train/images"),
    "nlvrv2": ("nlvr2", ["nlvrv2/annotations/nlvr_train.json"], "nlvrv2"),
    "snlive": ("snli_ve", ["snlive/snli_ve_train.jsonl"], "snlive/flickr30k_images"),
    "dolly": ("dolly", ["dolly/databricks-dolly-15k.jsonl"], ""),
    "alpaca_gpt4": ("alpaca", ["alpaca_gpt4/alpaca_gpt4_data.json"], ""),
    "baize": ("baize", ["baize/quora_chat_data.json"], ""),
}
# It shows half of the time what all annotators answered, as an input; ours keeps the answers for evaluation.
GIVEN_AWAY = re.compile(r"### Input:\n.*\n\n")

pytestmark = needs_parity


def samples(name):
    parser, files, _ = FILES[name]
    records = [record for file in files for record in read_records(DATASETS / file)]
    return [check_sample(find_parser(parser)(record)) for record in records]


def items(name):
    """What the published code gives: each sample of a dataset, and the item made of it, four times."""
    read = samples(name)
    return [(read[item["index"]], item) for item in read_json(f"datasets/{name}/expected.json")["items"]]


def prompt_of(turns, images):
    return prompt_text(format_turns(TEMPLATES["instruction"], place_images(turns, images), open_last=True))


def applied(transform, sample):
    """The turns of a sample after a transform."""
    return transform(copy.deepcopy(sample) | {"rng": np.random.default_rng(0)})["turns"]


def wording(sample, item):
    """What the published code puts behind the question or statement of a sample."""
    question = question_text(sample["turns"][0]["question"])
    return item["instruction"].partition(f"{question} ")[2].partition("\n\n")[0]


def test_every_published_dataset_is_here():
    assert set(FILES) >= set(read_json("datasets/configs.json"))


@pytest.mark.parametrize("name", FILES)
def test_every_record_is_read_and_its_images_exist(name):
    read, folder = samples(name), DATASETS / FILES[name][2]
    assert read
    assert all((folder / image).is_file() for sample in read for image in sample["images"])


@pytest.mark.parametrize("name", ["llava", "vqa", "text_ocr", "gqa", "clevr"])
def test_visual_prompts_and_answers_are_the_published_ones(name):
    for sample, item in items(name):
        [turn] = sample["turns"]
        if "\n" in question_text(turn["question"]):
            continue  # see test_published_questions_lose_their_line_breaks
        expected = GIVEN_AWAY.sub("", item["instruction"])
        assert (prompt_of([turn], len(sample["images"])), turn["answer"]) == (expected, item["answer"])


@pytest.mark.parametrize("name", ["dolly", "alpaca_gpt4"])
def test_text_prompts_and_answers_are_the_published_ones(name):
    for sample, item in items(name):
        assert (prompt_of(sample["turns"], 0), sample["turns"][0]["answer"]) == (item["instruction"], item["answer"])


@pytest.mark.parametrize("name", ["nlvrv1", "snlive"])
def test_statements_and_labels_are_the_published_ones(name):
    for sample, item in items(name):
        turns = applied(AddQuestion([wording(sample, item)]), sample)
        assert (prompt_of(turns, 1), turns[0]["answer"]) == (GIVEN_AWAY.sub("", item["instruction"]), item["answer"])
        given = GIVEN_AWAY.search(item["instruction"])
        assert given is None or given[0] == f"### Input:\n{', '.join(turns[0]['choices'])}\n\n"


def test_reasons_are_the_published_ones():
    for sample, item in items("aokvqa"):
        turns = applied(GiveReason([wording(sample, item)]), sample)
        assert (prompt_of(turns, 1), turns[0]["answer"]) == (item["instruction"], item["answer"])


def test_questions_about_a_book_are_the_published_ones():
    for sample, item in items("ocr_vqa"):
        asked = {(prompt_of([turn], 1), turn["answer"]) for turn in sample["turns"]}
        assert (item["instruction"], item["answer"]) in asked


@pytest.mark.parametrize("name", ["coco_caption", "minigpt4"])
def test_captions_are_the_published_ones(name):
    for sample, item in items(name):
        assert item["answer"] in sample["turns"][0]["answers"]


def test_published_dialogues_pair_entry_i_with_i_plus_1():
    """Ours pairs each question with its own answer, and these are texts, not lists of characters."""
    records = list(read_records(DATASETS / FILES["llava_dial"][1][0]))
    for record, sample in zip(records, samples("llava_dial"), strict=True):
        said = [entry["value"] for entry in record["conversations"]]
        questions = [value.replace("<image>", "").strip() for value in said[0::2]]
        turns = sample["turns"]
        assert [question_text(turn["question"]) for turn in turns] == questions[: len(turns)]
        assert [turn["answer"] for turn in turns] == said[1::2]


def test_published_aokvqa_never_shows_its_options():
    for sample in samples("aokvqa"):
        turns = applied(OfferOptions(), sample)
        assert f"Options: {', '.join(sample['turns'][0]['choices'])}." in prompt_of(turns, 1)


def test_published_baize_drops_the_last_turn():
    """And glues the lines of an answer together; else its turns are ours."""
    assert [len(sample["turns"]) for sample in samples("baize")] == [2, 3, 1, 1]
    for sample, item in items("baize"):
        for turn, instruction, answer in zip(sample["turns"], item["instruction"], item["answer"], strict=False):
            assert f"### Instruction:\n{turn['question']}\n\n### Response:\n" in instruction
            assert turn["answer"].replace("\n", "") == answer


def test_published_questions_lose_their_line_breaks():
    """Words of two lines stick together there."""
    sample, item = items("llava")[2]
    assert "hand?Please answerin detail." in item["instruction"]
    assert "hand?\nPlease answer\nin detail." in prompt_of(sample["turns"], 1)


def test_published_nlvr2_squeezes_two_images_into_one():
    """Ours shows both, left before right; and its labels are the options that are offered, in lower case."""
    for sample, item in items("nlvrv2"):
        turns = applied(AddQuestion([wording(sample, item)]), sample)
        assert prompt_of(turns, 1) == GIVEN_AWAY.sub("", item["instruction"])
        assert prompt_of(turns, 2).count("<image>") == 2
        assert item["instruction"].count("<image>") == 1
        assert [image.endswith(f"img{side}.png") for side, image in enumerate(sample["images"])] == [True, True]
        assert item["answer"] in ("True", "False")
        assert turns[0]["answer"] == item["answer"].lower()
