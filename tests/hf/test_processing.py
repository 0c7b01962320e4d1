"""The processor for transformers by itself."""

import base64
from io import BytesIO

import pytest
import torch
from PIL import Image
from transformers import AutoProcessor

import mmgpt.hf  # noqa: F401 (its classes become known to transformers)


@pytest.fixture(scope="module")
def processor(merged):
    return AutoProcessor.from_pretrained(merged)


@pytest.fixture
def image():
    """An image with transparency."""
    pixels = torch.randint(0, 255, (50, 80, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return Image.fromarray(pixels.numpy())


def question(*contents):
    return [{"role": "user", "content": list(contents)}]


def test_images_as_files_data_urls_and_objects_are_equal(processor, image, tmp_path):
    data = BytesIO()
    image.save(data, "png")
    (tmp_path / "image.png").write_bytes(data.getvalue())
    encoded = base64.b64encode(data.getvalue()).decode()
    url = f"data:image/png;base64,{encoded}"
    kinds = [
        {"type": "image", "image": image},
        {"type": "image", "path": str(tmp_path / "image.png")},
        {"type": "image", "url": url},
        {"type": "image", "base64": encoded},
        {"type": "image_url", "image_url": {"url": url}},
    ]
    messages = question(*kinds, {"type": "text", "text": "Which?"})
    inputs = processor.apply_chat_template(messages, tokenize=True, return_dict=True, return_tensors="pt")
    assert inputs["pixel_values"].shape == (5, 3, 64, 64)
    assert all(torch.equal(pixels, inputs["pixel_values"][0]) for pixels in inputs["pixel_values"])
    assert messages[0]["content"][-2]["type"] == "image_url"  # the messages stay as they are


def test_a_prompt_without_tokens_is_plain_text(processor):
    messages = [*question({"type": "text", "text": "Is </s> an end?"}), {"role": "assistant", "content": " yes "}]
    text = processor.apply_chat_template(messages)
    assert text == "<s>### Instruction:\nIs </s> an end?\n\n### Response:\nyes</s>"
    assert processor.apply_chat_template([messages, messages]) == [text, text]


def test_special_tokens_of_a_prompt_are_special(processor, image):
    text = "<s><image>Output:"
    nested = processor([[image], []], [text, "<s>a"], padding=True, return_tensors="pt")
    flat = processor([image], [text, "<s>a"], padding=True, return_tensors="pt")
    for name, value in nested.items():
        assert torch.equal(value, flat[name])
    assert processor.tokenizer.convert_ids_to_tokens(nested["input_ids"][0])[:2] == ["<s>", "<image>"]
    assert nested["attention_mask"][1].tolist()[:2] == [0, 0]  # padding on the left


def test_an_answer_is_continued(processor):
    messages = [*question({"type": "text", "text": "What is red?"}), {"role": "assistant", "content": "The circle"}]
    whole = processor.apply_chat_template(messages, tokenize=True, return_dict=True)["input_ids"][0]
    begun = processor.apply_chat_template(messages, continue_final_message=True, tokenize=True, return_dict=True)
    assert begun["input_ids"][0] == whole[:-1]
    assert whole[-1] == processor.tokenizer.eos_token_id


def test_wrong_inputs_are_refused(processor, image):
    with pytest.raises(ValueError, match=r"\[2, 0\] images for texts with \[1, 1\] <image>"):
        processor([[image, image], []], ["<image>", "<image>"])
    with pytest.raises(ValueError, match=r"\[0\] images for texts with \[1\] <image>"):
        processor(text="<image>")
    with pytest.raises(ValueError, match="truncation=True: a prompt is not cut"):
        processor(text="a", truncation=True, max_length=4)
    with pytest.raises(ValueError, match="'nowhere.png' is neither an image file"):
        processor("nowhere.png", "<image>")
    with pytest.raises(ValueError, match="not a int"):
        processor(3, "<image>")
    for roles in (["assistant"], ["user", "user"], ["user", "system"], ["tool"]):
        with pytest.raises(Exception, match="the roles are system, then user and assistant in turn"):
            processor.apply_chat_template([{"role": role, "content": "a"} for role in roles], tokenize=True)
