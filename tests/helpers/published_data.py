"""Small stand-ins for the published sources and further ones, in the places where the configs expect them."""

from pathlib import Path

from PIL import Image

DATA = Path(__file__).parents[1] / "data"
# Annotation file as the config names it, the small file that stands in for it, and the folder of the images.
PLACES = {
    "aokvqa": ("aokvqa/annotations/aokvqa_v1p0_train.json", "aokvqa.json", "coco"),
    "coco_caption": (
        "coco/annotations/coco_karpathy_train_converted.json",
        "coco_karpathy_train_converted.json",
        "coco",
    ),
    "ocr_vqa": ("OCR_VQA/downloaded_dataset.json", "ocr_vqa_downloaded.json", "OCR_VQA/image"),
    "llava_detail": ("llava/detail_23k.json", "llava_detail_23k.json", "coco/train2017"),
    "llava_reasoning": ("llava/complex_reasoning_77k.json", "llava_detail_23k.json", "coco/train2017"),
    "llava_dialogue": ("llava/conversation_58k.json", "llava_conversation_58k.json", "coco/train2017"),
    "minigpt4": ("cc_sbu_align/filter_cap.json", "filter_cap.json", "cc_sbu_align/image"),
    "dolly": ("dolly/databricks-dolly-15k.jsonl", "databricks-dolly-15k.jsonl", ""),
    "alpaca_gpt4": ("alpaca_gpt4/alpaca_gpt4_data.json", "alpaca_gpt4_data.json", ""),
    "baize": ("baize/quora_chat_data.json", "quora_chat_data.json", ""),
}
IMAGES = [
    "coco/train2017/000000299207.jpg", "coco/test2017/000000000007.jpg", "coco/elsewhere/9.jpg",
    "coco/train2014/COCO_train2014_000000057870.jpg", "OCR_VQA/image/0761183272.jpg",
    "coco/train2017/000000442786.jpg", "coco/train2017/000000033471.jpg", "coco/train2017/000000215677.jpg",
    "cc_sbu_align/image/2.jpg", "cc_sbu_align/image/17.jpg",
]  # fmt: skip
# Further sources, by the name of their variable: config file, small annotation file, small file of the questions.
FURTHER = {
    "vqav2": ("vqav2", "v2_mscoco_train2014_annotations.json", "v2_OpenEnded_mscoco_train2014_questions.json"),
    "vqav2_lavis": ("vqav2", "vqa_train.json", ""),
    "okvqa": ("okvqa", "okvqa_annotations.json", "okvqa_questions.json"),
    "okvqa_lavis": ("okvqa", "vqa_train.json", ""),
    "textvqa": ("textvqa", "TextVQA_0.5.1_train.json", ""),
    "gqa": ("gqa", "gqa_train_balanced_questions.json", ""),
    "clevr": ("clevr", "CLEVR_train_questions.json", ""),
    "nlvr": ("nlvr", "nlvr_train.json", ""),
    "nlvr2": ("nlvr", "nlvr2_train.json", ""),
    "nlvr2_lavis": ("nlvr", "nlvr2_lavis_train.json", ""),
    "snli_ve": ("snli_ve", "snli_ve_train.jsonl", ""),
    "coco_dialogue": ("coco_dialogue", "llava_conversation_58k.json", ""),
    "llava_interleave": ("llava_interleave", "llava_interleave.json", ""),
    "sharegpt": ("sharegpt", "sharegpt.json", ""),
    "own_images": ("own_data", "own_images.jsonl", ""),
    "own_text": ("own_data", "own_text.jsonl", ""),
    "own_messages": ("own_data", "trl_prompt_completion.jsonl", ""),
}


def make_data_root(root):
    """Writes small files in every place that the published configs name; returns the folder."""
    for place, source, _ in PLACES.values():
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (root / place).write_text((DATA / source).read_text())
    for image in IMAGES:
        draw(root / image)
    return root


def draw(path):
    """Writes a plain image; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 16), "red").save(path)
