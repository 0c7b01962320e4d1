"""Captions: COCO Caption in Karpathy's split, and MiniGPT-4's described images."""

from mmgpt.registry import PARSERS

from .fields import field, text_list


@PARSERS.register_module(name="coco_caption")
def coco_caption(record: dict) -> dict:
    """`{'image': path, 'caption': str | [str, ...], 'image_id': str}`, as LAVIS and MultiModal-GPT distribute it."""
    return _described(str(record.get("image_id", "")), field(record, "image"), text_list(record, "caption"))


@PARSERS.register_module(name="minigpt4")
def minigpt4(record: dict) -> dict:
    """`{'image_id': str, 'caption': str}` of cc_sbu_align's filter_cap.json; the image is `<image_id>.jpg`."""
    image_id = str(field(record, "image_id", (str, int)))
    return _described(image_id, f"{image_id}.jpg", text_list(record, "caption"))


def _described(name: str, image: str, captions: list[str]) -> dict:
    # The question is left open for AskQuestion, the choice among several captions for PickAnswer.
    answer = captions[0] if len(captions) == 1 else ""
    return {"id": name, "images": [image], "turns": [{"question": "", "answer": answer, "answers": captions}]}
