"""Captions: COCO Caption and Flickr30k in Karpathy's splits, NoCaps, and MiniGPT-4's described images."""

from pathlib import PurePosixPath

from mmgpt.registry import PARSERS

from .fields import add_tags, field, has, name_of, refuse_other_media, text_list


@PARSERS.register_module(name="coco_caption")
def coco_caption(record: dict) -> dict:
    """`{'image': path, 'caption': str | [str, ...], 'image_id': str}`, as LAVIS and MultiModal-GPT distribute it."""
    return _caption_sample(record, name_of(record, "image_id"), field(record, "image"), text_list(record, "caption"))


@PARSERS.register_module(name="karpathy")
def karpathy(record: dict, split: str) -> dict | None:
    """Image of Karpathy's dataset_coco.json or dataset_flickr30k.json (cs.stanford.edu/people/karpathy/deepimagesent).

    Args:
        record: `filename`, `split`, `sentences` [{`raw`}]; COCO's have a `filepath` ('val2014') and a `cocoid`, too.
        split: 'train', 'val', 'test' or (COCO) 'restval'; None is returned for records of the file's other splits.
    """
    if field(record, "split") != split:
        return None
    folder = f"{field(record, 'filepath')}/" if has(record, "filepath") else ""
    name, captions = field(record, "filename"), _texts(record, "sentences", "raw")
    return _caption_sample(record, name_of(record, "cocoid") or PurePosixPath(name).stem, folder + name, captions)


@PARSERS.register_module(name="nocaps")
def nocaps(record: dict) -> dict:
    """Image record of nocaps_val_4500_captions.json (nocaps.org) with the annotations that `read_records` adds.

    Its `domain` ('in-domain', 'near-domain', 'out-domain') becomes a tag.
    """
    captions, name = _texts(record, "annotations", "caption"), str(field(record, "id", int))
    return add_tags(_caption_sample(record, name, field(record, "file_name"), captions), record, ["domain"])


@PARSERS.register_module(name="minigpt4")
def minigpt4(record: dict) -> dict:
    """`{'image_id': str, 'caption': str}` of cc_sbu_align's filter_cap.json; the image is `<image_id>.jpg`."""
    image_id = str(field(record, "image_id", (str, int)))
    return _caption_sample(record, image_id, f"{image_id}.jpg", text_list(record, "caption"))


def _texts(record: dict, key: str, text: str) -> list[str]:
    entries = field(record, key, list)
    if not all(isinstance(entry, dict) for entry in entries) or not entries:
        raise ValueError(f"key {key!r} must hold at least one object, got {entries!r:.80}")
    return [field(entry, text).strip() for entry in entries]


def _caption_sample(record: dict, name: str, image: str, captions: list[str]) -> dict:
    refuse_other_media(record)
    # AskQuestion fills in the question, and PickAnswer chooses one of several captions.
    answer = captions[0] if len(captions) == 1 else ""
    return {"id": name, "images": [image], "turns": [{"question": "", "answer": answer, "answers": captions}]}
