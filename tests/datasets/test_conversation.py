import pytest

from mmgpt.datasets.conversation import (
    IMAGE_CONTENT,
    append_text,
    check_sample,
    count_images,
    leading_images,
    literal_media_marks,
    place_images,
    prepend_text,
    question_text,
    text_content,
)


def test_image_mark_in_a_string_is_text():
    turns = [{"question": "what does <image> mean?"}]
    assert count_images(turns) == 0
    assert question_text(turns[0]["question"]) == "what does <image> mean?"


def test_images_without_contents_come_first():
    turns = [{"question": "a"}, {"question": "b"}]
    placed = place_images(turns, 2)
    assert placed[0]["question"] == [IMAGE_CONTENT, IMAGE_CONTENT, text_content("a")]
    assert placed[1] == turns[1]
    assert turns[0]["question"] == "a"
    assert place_images(turns, 0) == turns


@pytest.mark.parametrize(("images", "marks"), [(1, 2), (2, 1), (0, 1)])
def test_number_of_image_contents_must_equal_that_of_images(images, marks):
    turns = [{"question": [IMAGE_CONTENT] * marks}]
    with pytest.raises(ValueError, match=f"{images} images, but {marks} image contents"):
        place_images(turns, images)


def test_appended_text_does_not_change_the_question():
    contents = [IMAGE_CONTENT]
    assert append_text(contents, "what?") == [IMAGE_CONTENT, text_content("what?")]
    assert contents == [IMAGE_CONTENT]
    assert append_text("what?", "why?") == "what? why?"
    assert append_text("", "why?") == "why?"


def test_prepended_text_follows_leading_images():
    contents = [IMAGE_CONTENT, text_content("what?"), IMAGE_CONTENT]
    expected = [IMAGE_CONTENT, text_content("Look.\n\n"), text_content("what?"), IMAGE_CONTENT]
    assert prepend_text("Look.", contents) == expected
    assert prepend_text("Look.", "what?") == "Look.\n\nwhat?"
    assert prepend_text("", contents) is contents
    assert [leading_images(each) for each in (contents, [IMAGE_CONTENT] * 2, [])] == [1, 2, 0]


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        ({"images": "a.jpg", "turns": [{"question": "a"}]}, "images must be a list of paths, got 'a.jpg'"),
        ({"images": [3], "turns": [{"question": "a"}]}, "images must be a list"),
        ({"images": [], "turns": []}, "at least one turn"),
        ({"images": [], "turns": [{"answer": "a"}]}, "a question must be a string or a list of contents, got None"),
        ({"images": [], "turns": [{"question": [{"type": "video"}]}]}, "a question must be"),
        ({"images": [], "turns": [{"question": "a", "answer": 4}]}, "answer must be a string, got 4"),
        ({"images": [], "turns": [{"question": "a", "choices": "ab"}]}, "choices must be a list of strings, got 'ab'"),
        ({"images": ["a"], "turns": [{"question": [IMAGE_CONTENT] * 2}]}, "1 images, but 2 image contents"),
        ({"images": [], "turns": [{"question": "a"}]}, r"id must be a string \('' where .* none\), got None"),
        ({"images": [], "turns": [{"question": "a"}], "tags": {"kind": 3}}, "tag 'kind' must be a string or a list"),
        (
            {"images": [], "turns": [{"question": "a"}], "tags": {"kind": ["a", 3]}},
            r"tag 'kind' must .* got \['a', 3\]",
        ),
        ({"id": 7, "images": [], "turns": [{"question": "a"}]}, "id must be a string .* got 7"),
    ],
)
def test_check_sample_names_the_wrong_value(sample, message):
    with pytest.raises(ValueError, match=message):
        check_sample(sample)


@pytest.mark.parametrize(
    ("question", "marks"),
    [
        ("<video>\nWhat happens?", ["<video>"]),
        ("Picture 1: <img>a/b.jpg</img> and <img>c.jpg</img>", ["<img>a/b.jpg</img>", "<img>c.jpg</img>"]),
        ([IMAGE_CONTENT, text_content("Is <image> like <image_2>?")], ["<image>", "<image_2>"]),
        (
            "<|image_1|><|audio|> <|vision_start|><|image_pad|>",
            ["<|image_1|>", "<|audio|>", "<|vision_start|>", "<|image_pad|>"],
        ),
        ("What does <img src='a.png'> mean, and a < b > c, <b>bold</b>, <imagery>?", []),
        ([IMAGE_CONTENT, text_content("What?")], []),
    ],
)
def test_media_marks_in_texts_are_found(question, marks):
    assert literal_media_marks({"turns": [{"question": question, "answer": "<video>"}]}) == marks


def test_tags_are_texts_or_lists_of_texts():
    sample = {"id": "", "images": [], "turns": [{"question": "a"}], "tags": {"kind": "b", "kinds": ["c", "d"]}}
    assert check_sample(sample) is sample
