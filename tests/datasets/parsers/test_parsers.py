import pytest

from mmgpt.datasets.conversation import check_sample
from mmgpt.datasets.records import find_parser
from tests.helpers.parsing import IMAGE, parse, texts


def test_aokvqa():
    chosen, unanswered, direct = parse("aokvqa", "aokvqa.json")
    assert chosen["images"] == ["train2017/000000299207.jpg"]
    assert chosen["id"] == "22MexNkBPpdZGX6sxbxVBH"
    [turn] = chosen["turns"]
    assert turn["question"] == "What does the man wait for?"
    assert turn["answer"] == "bus"
    assert turn["choices"] == ["train", "bus", "boat", "lift"]
    assert len(turn["answers"]) == 10
    assert len(turn["rationales"]) == 3
    assert unanswered["images"] == ["test2017/000000000007.jpg"]
    assert unanswered["turns"][0]["answer"] == ""
    # No choices: the majority of the annotators, the first of those that tie; and the published key of the image.
    assert direct["images"] == ["elsewhere/9.jpg"]
    assert direct["turns"][0]["answer"] == "wood"


def test_coco_caption_has_one_caption_or_many():
    [many] = parse("coco_caption", "coco_karpathy_train_converted.json")
    assert many["images"] == ["train2014/COCO_train2014_000000057870.jpg"]
    assert many["turns"][0]["question"] == many["turns"][0]["answer"] == ""
    assert len(many["turns"][0]["answers"]) == 3
    [one] = parse("coco_caption", "coco_karpathy_val.json")
    assert one["turns"][0]["answer"] == "A woman cuts a cake."


def test_ocr_vqa_official_layout_has_one_split():
    train, test = parse({"type": "ocr_vqa", "split": "train"}, "ocr_vqa_dataset.json")
    assert train["images"] == ["761183272.jpg"]
    assert test is None
    assert train["turns"][1] == {"question": "Is this a calendar?", "answer": "Yes"}
    train, test = parse("ocr_vqa", "ocr_vqa_dataset.json")
    assert train
    assert test["images"] == ["1421409895.png"]


def test_ocr_vqa_published_layout():
    [sample] = parse({"type": "ocr_vqa", "split": "train"}, "ocr_vqa_downloaded.json")
    assert sample["images"] == ["0761183272.jpg"]
    assert len(sample["turns"]) == 2


def test_ocr_vqa_names_the_splits():
    with pytest.raises(ValueError, match="'dev'.*train, val, test"):
        parse({"type": "ocr_vqa", "split": "dev"}, "ocr_vqa_downloaded.json")


def test_llava_single_turn_keeps_line_breaks_and_puts_the_image_first():
    behind, before = parse("llava", "llava_detail_23k.json")
    assert behind["turns"][0]["question"] == [
        IMAGE,
        {"type": "text", "text": "What do you see happening in this image?"},
    ]
    assert behind["turns"][0]["answer"] == "A dog runs along a beach.\n\nIt carries a red ball."
    assert before["turns"][0]["question"] == [IMAGE, {"type": "text", "text": "Explain\nthe picture."}]


def test_llava_dialogue_pairs_each_question_with_its_answer():
    [sample] = parse("llava", "llava_conversation_58k.json")
    assert [turn["answer"] for turn in sample["turns"]] == [
        "It is white and red.",
        "It carries an advertisement.",
        "Yes, it drives down a street.",
    ]
    assert sample["turns"][1]["question"] == "What does its back say?"
    assert sample["images"] == ["000000215677.jpg"]


def llava(*values, image="1.jpg"):
    roles = ("human", "gpt")
    said = [{"from": roles[i % 2], "value": value} for i, value in enumerate(values)]
    return find_parser("llava")({"id": "x", "image": image, "conversations": said})


def test_llava_images_inside_the_text_stay_there():
    sample = check_sample(llava("<image>\nIs\n<image>\nlike it?\n<image>", "yes", image=["1.jpg", "2.jpg", "3.jpg"]))
    # In the order of the images: the second is the one within the text.
    assert texts(sample["turns"][0]["question"]) == ["IMAGE", "Is\n", "IMAGE", "\nlike it?\n", "IMAGE"]


def test_llava_image_alone_and_in_a_later_turn():
    assert llava("<image>", "a bus")["turns"][0]["question"] == [IMAGE]
    later = check_sample(llava("hello", "hello", "what is this? <image>", "a bus"))
    assert later["turns"][0]["question"] == "hello"
    assert later["turns"][1]["question"][0] == IMAGE


@pytest.mark.parametrize(
    ("values", "image", "images", "marks"),
    [(("<image> <image> which?", "a"), "1.jpg", 1, 2), (("<image> which?", "a"), ["1.jpg", "2.jpg"], 2, 1)],
)
def test_other_number_of_images_than_marks_is_an_error(values, image, images, marks):
    with pytest.raises(ValueError, match=f"{images} images, but {marks} image contents"):
        check_sample(llava(*values, image=image))


def test_llava_wrong_order_of_speakers_is_an_error():
    said = [{"from": "human", "value": "a"}, {"from": "human", "value": "b"}]
    with pytest.raises(ValueError, match="found 'human', expected 'gpt'"):
        find_parser("llava")({"id": "x", "conversations": said})
    with pytest.raises(ValueError, match="empty"):
        find_parser("llava")({"id": "x", "conversations": []})


def test_llava_text_only_and_unanswered():
    sample = check_sample(find_parser("llava")({"conversations": [{"from": "human", "value": "hello"}]}))
    assert sample["images"] == []
    assert sample["turns"] == [{"question": "hello", "answer": ""}]


def test_minigpt4():
    first, second = parse("minigpt4", "filter_cap.json")
    assert first["images"] == ["2.jpg"]
    assert second["images"] == ["17.jpg"]
    assert first["turns"][0]["answer"] == "A tall tree stands in a field. Its leaves are yellow."


def test_dolly_with_blank_lines_and_context():
    plain, given = parse("dolly", "databricks-dolly-15k.jsonl")
    assert plain["turns"] == [{"question": "Name a river.", "answer": "The Rhine."}]
    assert given["turns"][0]["context"] == "The Rhine rises\u2028in the Alps."


def test_alpaca():
    plain, given = parse("alpaca", "alpaca_gpt4_data.json")
    assert "context" not in plain["turns"][0]
    assert plain["turns"][0]["answer"] == "1. Sleep.\n2. Eat.\n3. Walk."
    assert given["turns"][0]["context"] == "b, a"


def test_baize_has_every_answered_turn():
    two, one, none = parse("baize", "quora_chat_data.json")
    assert two["turns"] == [
        {"question": "Why is the sky blue?", "answer": "Air scatters blue light more than red."},
        {"question": "And at night?", "answer": "Then there is little light.\nSo it is dark."},
    ]
    assert one["turns"] == [{"question": "Hello", "answer": "Hello!"}]
    assert none["turns"] == [{"question": "Anyone there?", "answer": ""}]
