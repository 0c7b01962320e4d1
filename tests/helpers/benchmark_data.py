"""Small stand-ins for the benchmarks' files, in the places where their configs expect them."""

from pathlib import Path

from mmgpt.datasets.records import find_parser, read_records
from tests.helpers.published_data import DATA, draw

# By the name of the benchmark: small annotation file, small file of the questions.
FILES = {
    "aokvqa": ("aokvqa_val.json", ""),
    "aokvqa_direct": ("aokvqa_val.json", ""),
    "coco_caption": ("dataset_coco.json", ""),
    "flickr30k": ("dataset_flickr30k.json", ""),
    "gqa": ("gqa_testdev_balanced_questions.json", ""),
    "language": ("language_val.jsonl", ""),
    "nocaps": ("nocaps_val_4500_captions.json", ""),
    "ocr_vqa": ("ocr_vqa_dataset.json", ""),
    "okvqa": ("okvqa_val_annotations.json", "okvqa_val_questions.json"),
    "pope": ("coco_pope_random.json", ""),
    "scienceqa": ("scienceqa_problems.json", ""),
    "snli_ve": ("snli_ve_test.jsonl", ""),
    "textvqa": ("TextVQA_0.5.1_val.json", ""),
    "vizwiz": ("vizwiz_val.json", ""),
    "vqav2": ("v2_mscoco_val2014_annotations.json", "v2_OpenEnded_mscoco_val2014_questions.json"),
    "vqav2_test_dev": ("v2_OpenEnded_mscoco_test-dev2015_questions.json", ""),
}


def put_benchmark(dataset, name):
    """Writes small files, and the images that they name, in the places that a benchmark's dataset config names."""
    for part in dataset.get("visual", [dataset]):
        place_small(part, *FILES[name])


def place_small(part, annotations, questions=""):
    """Writes a small annotation file, its questions and the images that it names where a dataset config has them."""
    root, folders = Path(part["data_root"]), part["data_prefix"]
    places = (part["ann_file"], folders.get("questions"))
    for place, source in zip(places, (annotations, questions), strict=True):
        if place:
            (root / place).parent.mkdir(parents=True, exist_ok=True)
            (root / place).write_text((DATA / source).read_text())
    parse, asked = find_parser(part["parser"]), root / places[1] if places[1] else None
    samples = [parse(record) for record in read_records(root / part["ann_file"], asked)]
    for image in (image for sample in samples if sample for image in sample["images"]):
        draw(root / folders["img"] / image)
