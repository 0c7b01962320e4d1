"""Every format's real-shaped file as a dataset, and wrong records of each: the error names file, record and key."""

import copy
import json
import re
from typing import NamedTuple

import pytest

from mmgpt.datasets.conversation import check_sample
from mmgpt.datasets.records import find_parser, parse_record, read_records
from mmgpt.registry import DATASETS, PARSERS
from mmgpt.utils.errors import SampleError
from tests.helpers.parsing import COCO_2014, DATA


class Format(NamedTuple):
    """A file of tests/data: keys that its records need, and its samples as (images, turns) each."""

    parser: str | dict
    file: str
    keys: str
    samples: list
    questions: str | None = None

    def dataset(self, ann_file, questions=None):
        """A dataset of this format on a file."""
        prefix = dict(questions=str(questions)) if questions else {}
        return DATASETS.build(
            dict(type="InstructionDataset", parser=self.parser, ann_file=str(ann_file), data_prefix=prefix)
        )

    def first(self):
        """Its first record."""
        return next(read_records(DATA / self.file, self.questions and DATA / self.questions))


FORMATS = {
    "aokvqa": Format("aokvqa", "aokvqa.json", "question choices split image_id", [(1, 1)] * 3),
    "coco_caption": Format("coco_caption", "coco_karpathy_val.json", "image caption", [(1, 1)]),
    "coco_captions": Format("coco_caption", "coco_karpathy_train_converted.json", "image caption", [(1, 1)]),
    "ocr_vqa": Format("ocr_vqa", "ocr_vqa_downloaded.json", "questions answers", [(1, 2)]),
    "ocr_vqa_official": Format(
        {"type": "ocr_vqa", "split": "train"}, "ocr_vqa_dataset.json", "imageURL questions answers split", [(1, 2)]
    ),
    "aokvqa_val": Format("aokvqa", "aokvqa_val.json", "question choices split image_id", [(1, 1)] * 2),
    "karpathy_coco": Format(
        {"type": "karpathy", "split": "test"}, "dataset_coco.json", "filename sentences split", [(1, 1)]
    ),
    "karpathy_flickr30k": Format(
        {"type": "karpathy", "split": "train"}, "dataset_flickr30k.json", "filename sentences split", [(1, 1)]
    ),
    "nocaps": Format("nocaps", "nocaps_val_4500_captions.json", "id file_name annotations domain", [(1, 1)] * 2),
    "pope": Format(
        {"type": "pope", "category": "random"}, "coco_pope_random.json", "question_id image text label", [(1, 1)] * 2
    ),
    "scienceqa": Format(
        {"type": "scienceqa", "split": "test"},
        "scienceqa_problems.json",
        "question choices answer hint subject grade split",
        [(0, 1), (1, 1), (0, 1)],
    ),
    "llava": Format("llava", "llava_detail_23k.json", "conversations", [(1, 1)] * 2),
    "llava_dialogue": Format("llava", "llava_conversation_58k.json", "conversations", [(1, 3)]),
    "llava_interleave": Format("llava", "llava_interleave.json", "conversations", [(3, 3)]),
    "minigpt4": Format("minigpt4", "filter_cap.json", "image_id caption", [(1, 1)] * 2),
    "dolly": Format("dolly", "databricks-dolly-15k.jsonl", "instruction context response", [(0, 1)] * 2),
    "alpaca": Format("alpaca", "alpaca_gpt4_data.json", "instruction input output", [(0, 1)] * 2),
    "baize": Format("baize", "quora_chat_data.json", "input", [(0, 2), (0, 1), (0, 1)]),
    "vqav2": Format(
        {"type": "vqa", "image": COCO_2014},
        "v2_mscoco_train2014_annotations.json",
        "question image_id",
        [(1, 1)] * 2,
        "v2_OpenEnded_mscoco_train2014_questions.json",
    ),
    "vqav2_val": Format(
        {"type": "vqa", "image": COCO_2014, "tags": ["question_type", "answer_type"]},
        "v2_mscoco_val2014_annotations.json",
        "question image_id question_type answer_type",
        [(1, 1)] * 2,
        "v2_OpenEnded_mscoco_val2014_questions.json",
    ),
    "vqav2_test_dev": Format(
        {"type": "vqa", "image": COCO_2014},
        "v2_OpenEnded_mscoco_test-dev2015_questions.json",
        "question image_id",
        [(1, 1)] * 2,
    ),
    "okvqa_val": Format(
        {"type": "vqa", "image": COCO_2014},
        "okvqa_val_annotations.json",
        "question image_id",
        [(1, 1)],
        "okvqa_val_questions.json",
    ),
    "vizwiz": Format(
        {"type": "vqa", "tags": ["answer_type"]}, "vizwiz_val.json", "question image answer_type", [(1, 1)] * 2
    ),
    "vqav2_lavis": Format("vqa", "vqa_train.json", "question image", [(1, 1)] * 2),
    "okvqa": Format(
        {"type": "vqa", "image": COCO_2014}, "okvqa_annotations.json", "question", [(1, 1)], "okvqa_questions.json"
    ),
    "textvqa": Format(
        {"type": "vqa", "image": "{image_id}.jpg"}, "TextVQA_0.5.1_train.json", "question image_id", [(1, 1)]
    ),
    "textvqa_val": Format(
        {"type": "vqa", "image": "{image_id}.jpg"}, "TextVQA_0.5.1_val.json", "question image_id", [(1, 1)]
    ),
    "gqa_testdev": Format(
        {"type": "vqa", "image": "{imageId}.jpg", "tags": ["structural", "semantic"]},
        "gqa_testdev_balanced_questions.json",
        "question imageId",
        [(1, 1)],
    ),
    "gqa": Format(
        {"type": "vqa", "image": "{imageId}.jpg", "answer": "fullAnswer"},
        "gqa_train_balanced_questions.json",
        "question imageId fullAnswer",
        [(1, 1)],
    ),
    "clevr": Format(
        {"type": "vqa", "image": "{split}/{image_filename}"},
        "CLEVR_train_questions.json",
        "question split image_filename",
        [(1, 1)],
    ),
    "nlvr": Format({"type": "nlvr", "split": "train"}, "nlvr_train.json", "sentence identifier", [(6, 1)] * 2),
    "nlvr2": Format("nlvr2", "nlvr2_train.json", "sentence identifier", [(2, 1)] * 2),
    "nlvr2_lavis": Format("nlvr2", "nlvr2_lavis_train.json", "sentence", [(2, 1)]),
    "snli_ve": Format("snli_ve", "snli_ve_train.jsonl", "sentence2 Flickr30K_ID", [(1, 1)] * 2),
    "snli_ve_test": Format("snli_ve", "snli_ve_test.jsonl", "sentence2 Flickr30K_ID", [(1, 1)] * 2),
    "sharegpt": Format("sharegpt", "sharegpt.json", "conversations", [(0, 2), (0, 1)]),
    "sharegpt_images": Format("sharegpt", "sharegpt_images.json", "conversations", [(1, 1)]),
    "messages": Format("messages", "chat_messages.jsonl", "messages", [(3, 2), (0, 2)]),
    "messages_page": Format("messages", "chat_page.json", "messages", [(1, 2)]),
    "messages_prompt": Format("messages", "trl_prompt_completion.jsonl", "completion", [(1, 1)] * 2),
    "the_cauldron": Format("the_cauldron", "the_cauldron.jsonl", "texts", [(2, 2)]),
    "own": Format("conversation", "own_images.jsonl", "turns", [(1, 1), (2, 2), (1, 1)]),
    "own_text": Format("conversation", "own_text.jsonl", "turns", [(0, 2), (0, 1)]),
    "language": Format("conversation", "language_val.jsonl", "turns", [(0, 1), (0, 1)]),
}
KEYS = [(name, key) for name, each in FORMATS.items() for key in each.keys.split()]


def test_every_parser_is_tested():
    PARSERS.import_from_location()
    walked = {each.parser if isinstance(each.parser, str) else each.parser["type"] for each in FORMATS.values()}
    assert walked == set(PARSERS.module_dict)
    files = {each.file for each in FORMATS.values()} | {each.questions for each in FORMATS.values()} - {None}
    assert files == {path.name for path in DATA.iterdir() if path.is_file()}


@pytest.mark.parametrize("name", FORMATS)
def test_file_in_the_published_layout_is_read(name):
    """All its samples follow the schema, have a name, and ask or answer something."""
    wanted = FORMATS[name]
    dataset = wanted.dataset(DATA / wanted.file, wanted.questions and DATA / wanted.questions)
    samples = [check_sample(dataset.get_data_info(i)) for i in range(len(dataset))]
    assert [(len(sample["images"]), len(sample["turns"])) for sample in samples] == wanted.samples
    assert all(sample["id"] and sample["file"] == str(DATA / wanted.file) for sample in samples)
    for turn in (turn for sample in samples for turn in sample["turns"]):
        assert turn["question"] or turn["answer"] or turn["answers"]


@pytest.fixture
def parser_error(tmp_path):
    """A function that gives the error about a wrong record behind a right one, without file and record."""

    def error(name, wrong):
        path = tmp_path / "wrong.json"
        path.write_text(json.dumps([FORMATS[name].first(), wrong]))
        with pytest.raises(SampleError) as raised:
            FORMATS[name].dataset(path)
        assert (raised.value.location.file, raised.value.location.record) == (str(path), 1)
        return raised.value.reason

    return error


@pytest.mark.parametrize(("name", "key"), KEYS)
def test_missing_key_is_named(parser_error, name, key):
    record = FORMATS[name].first()
    del record[key]
    keys = ", ".join(record) or "none"
    assert parser_error(name, record) == f"no key {key!r}; keys found: {keys}"


NULL = {("scienceqa", "hint"), ("dolly", "context"), ("alpaca", "input")}  # null is the same as ''


@pytest.mark.parametrize("value", [None, {"a": 1}, 1.5])
@pytest.mark.parametrize(("name", "key"), KEYS)
def test_value_of_another_type_is_named(parser_error, name, key, value):
    if value is None and (name, key) in NULL:
        pytest.skip("null is the same as an empty text here")
    message = parser_error(name, FORMATS[name].first() | {key: value})
    assert re.fullmatch(rf"key '{key}' must be [\w ]+, got {re.escape(repr(value))}", message)


def parsed(name, record):
    return parse_record(find_parser(FORMATS[name].parser), 0, record)


@pytest.mark.parametrize(("name", "key"), sorted(NULL))
def test_null_is_an_empty_text(name, key):
    assert parsed(name, FORMATS[name].first() | {key: None}) == parsed(name, FORMATS[name].first() | {key: ""})


@pytest.mark.parametrize("name", FORMATS)
def test_null_equals_a_missing_key(name):
    """Every key that a parser can do without, also those of turns, and keys that other records of its kind have."""
    needed, record = FORMATS[name].keys.split(), FORMATS[name].first()
    others = ("id", "image", "images", "system", "answers", "answer", "label", "cocoid", "tags", "video", "question_id")
    for key in {*record, *others} - {*needed}:
        without = {other: value for other, value in record.items() if other != key}
        try:
            expected = parsed(name, without)
        except ValueError:
            continue  # it is needed by this record
        if key not in record and name.startswith(("own", "language")):
            continue  # a key that our own schema does not know is refused
        assert parsed(name, {**without, key: None}) == expected, key


@pytest.mark.parametrize("key", ["answer", "context", "answers", "choices", "rationales"])
def test_null_in_a_turn_of_our_own_schema(key):
    turn = {"question": "What?", "answer": "A cup."}
    turn.pop(key, None)
    assert parsed("own", {"turns": [{**turn, key: None}]}) == parsed("own", {"turns": [turn]})


@pytest.mark.parametrize(
    "name", ["llava", "sharegpt", "messages", "the_cauldron", "dolly", "alpaca", "minigpt4", "vqav2"]
)
@pytest.mark.parametrize("key", ["video", "videos", "audio", "speech"])
def test_a_record_with_a_video_or_a_sound_is_refused(name, key):
    with pytest.raises(ValueError, match=rf"key '{key}' \('1.mp4'\): only images are read"):
        parsed(name, FORMATS[name].first() | {key: "1.mp4"})
    assert parsed(name, FORMATS[name].first() | {key: []}) == parsed(name, FORMATS[name].first())


def changed(record, place, value):
    """A copy of a record with another value at a place, such as 'turns.0.answer'; None takes the key away."""
    record = copy.deepcopy(record)
    *way, last = (int(key) if key.isdigit() else key for key in place.split("."))
    within = record
    for key in way:
        within = within[key]
    if value is None:
        del within[last]
    else:
        within[last] = value
    return record


@pytest.mark.parametrize(
    ("name", "place", "value", "message"),
    [
        ("aokvqa", "correct_choice_idx", 4, "key 'correct_choice_idx' is 4, but there are 4 choices"),
        ("aokvqa", "correct_choice_idx", -1, "key 'correct_choice_idx' is -1, but there are 4 choices"),
        ("aokvqa", "correct_choice_idx", "1", "key 'correct_choice_idx' must be int, got '1'"),
        ("aokvqa", "choices.0", 7, "key 'choices' must hold strings, got [7,"),
        ("aokvqa", "direct_answers.9", {}, "key 'direct_answers' must hold strings, got ["),
        ("aokvqa", "rationales.0", 1, "key 'rationales' must hold strings, got [1,"),
        ("aokvqa_val", "difficult_direct_answer", "no", "key 'difficult_direct_answer' must be bool, got 'no'"),
        ("karpathy_coco", "sentences", [], "key 'sentences' must hold at least one object, got []"),
        ("karpathy_coco", "sentences.0", "A man.", "key 'sentences' must hold at least one object, got ['A man.',"),
        ("karpathy_coco", "sentences.1.raw", None, "no key 'raw'; keys found: tokens, imgid, sentid"),
        ("karpathy_coco", "filepath", 3, "key 'filepath' must be str, got 3"),
        ("nocaps", "annotations.0.caption", 3, "key 'caption' must be str, got 3"),
        ("pope", "label", "maybe", "key 'label' must be one of yes, no, got 'maybe'"),
        ("scienceqa", "answer", 2, "key 'answer' is 2, but there are 2 choices"),
        ("scienceqa", "grade", "college", "key 'grade' must be 'grade1' to 'grade12', got 'college'"),
        ("scienceqa", "image", 3, "key 'image' must be str, got 3"),
        ("gqa_testdev", "types.semantic", None, "key 'semantic' must be str, got [{"),
        ("gqa_testdev", "types", [], "key 'types' must be dict, got []"),
        ("coco_captions", "caption.2", 3, "key 'caption' must hold strings, got ["),
        ("ocr_vqa", "answers", ["A. Sailor"], "2 questions, but 1 answers"),
        ("ocr_vqa", "questions", [], "0 questions, but 2 answers"),
        ("ocr_vqa", "questions.1", 1, "key 'questions' must hold strings, got ["),
        ("ocr_vqa_official", "split", "1", "key 'split' must be int, got '1'"),
        ("llava", "conversations", [], "conversations is empty"),
        ("llava", "conversations.0", "hello", "conversations must hold objects, got 'hello'"),
        ("llava", "conversations.0.value", None, "no key 'value'; keys found: from"),
        ("llava", "conversations.1.from", None, "no key 'from'; keys found: value"),
        ("llava", "conversations.1.value", 3, "key 'value' must be str, got 3"),
        ("llava", "conversations.1.from", "human", "conversations must go human, gpt, human, ...: found 'human'"),
        ("llava", "conversations.0.value", "<image> and <image>", "1 images, but 2 image contents in its questions"),
        ("llava", "image", 3, "key 'image' must be str or list, got 3"),
        ("llava_interleave", "image.2", 3, "key 'image' must hold strings, got ["),
        ("llava_interleave", "image.2", None, "2 images, but 3 image contents in its questions"),
        ("minigpt4", "caption", [1], "key 'caption' must hold strings, got [1]"),
        ("vqav2", "answers.0.answer", None, "no key 'answer'; keys found: answer_confidence, answer_id"),
        ("vqav2", "answers.0.answer", 3, "key 'answer' must be str, got 3"),
        ("vqav2", "answers.0", "net", "key 'answers' must hold strings, got ['net', {"),
        ("vqav2", "image_id", "x", f"the record does not fit {COCO_2014!r}: "),
        ("vqav2_lavis", "answer.0", 1, "key 'answer' must hold strings, got [1,"),
        ("nlvr", "label", "maybe", "key 'label' must be one of true, false, got 'maybe'"),
        ("nlvr2", "directory", [37], "key 'directory' must be str or int, got [37]"),
        ("nlvr2_lavis", "images.1", None, "key 'images' must hold the left and the right image, got ["),
        ("nlvr2_lavis", "images.1", 2, "key 'images' must hold strings, got ["),
        ("snli_ve", "gold_label", "-", "key 'gold_label' must be one of entailment, neutral, contradiction, got '-'"),
        ("sharegpt", "conversations.0", 3, "conversations must hold objects, got 3"),
        ("sharegpt", "conversations.2.value", None, "no key 'value'; keys found: from"),
        ("sharegpt_images", "system", ["a"], "key 'system' must be str, got ['a']"),
        (
            "sharegpt_images",
            "conversations.0.value",
            "<image> <image>",
            "1 images, but 2 image contents in its questions",
        ),
        ("own", "turns", [], "a sample needs a list with at least one turn, got []"),
        ("own", "turns.0", "a", "a turn must be an object, got 'a'"),
        ("own", "turns.0.question", None, "no key 'question'; keys found: answer"),
        ("own", "turns.0.answer", 3, "answer must be a string, got 3"),
        ("own", "turns.0.answers", "a cup", "answers must be a list of strings, got 'a cup'"),
        ("own", "turns.0.question", [{"type": "image"}] * 2, "1 images, but 2 image contents in its questions"),
        ("own", "images.0", 1, "key 'images' must hold strings, got [1]"),
        ("own", "image", "1.jpg", "unknown key 'image': a record has id, images, turns"),
    ],
)
def test_wrong_value_is_named(parser_error, name, place, value, message):
    assert parser_error(name, changed(FORMATS[name].first(), place, value)).startswith(message)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("record", [[], "text", 3, None])
def test_record_that_is_not_an_object_is_an_error(parser_error, name, record):
    assert parser_error(name, record) == f"a record must be an object, got {record!r}"


@pytest.mark.parametrize("key", ["image_path", "img", "image_url", "Image"])
@pytest.mark.parametrize("name", ["llava", "sharegpt", "alpaca", "dolly"])
def test_a_record_with_images_under_another_key_is_refused(name, key):
    record = {other: value for other, value in FORMATS[name].first().items() if other not in ("image", "images")}
    with pytest.raises(ValueError, match=rf"key '{key}' \('1.jpg'\): this format has no images under that key"):
        parsed(name, record | {key: "1.jpg"})


def test_two_different_lists_of_images_are_an_error():
    record = FORMATS["llava"].first()
    assert parsed("llava", record | {"images": [record["image"]]})["images"] == [record["image"]]
    with pytest.raises(ValueError, match="'image' and 'images' name different files"):
        parsed("llava", record | {"images": ["other.jpg"]})
    for name in ("alpaca", "dolly"):
        with pytest.raises(ValueError, match="this format has no images"):
            parsed(name, FORMATS[name].first() | {"image": "1.jpg"})
