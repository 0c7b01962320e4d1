"""Generation of all files of the tiny world in one folder."""

import random
from concurrent.futures import ProcessPoolExecutor
from typing import NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from . import layouts, text_tasks
from .drawing import draw_image, scan_split
from .questions import FAMILIES
from .scenes import draw_scene
from .vocabulary import CANVAS

FIRST_ID = {"train": 0, "heldout": 1_000_000, "pretrain": 2_000_000}
QUESTION_SHARE = 0.65  # share of the training scenes that have a question of a family
PRETRAIN_MIX = (("shapes", 0.70), ("word", 0.12), ("digits", 0.18))


class Job(NamedTuple):
    """One image to draw, with all that determines it."""

    image: str  # name relative to the folder of images
    seed: tuple
    kind: str
    split: str
    count: int | None = None
    unseen: bool = False
    described: bool = False  # whether it is also written to cc_sbu_align, as JPEG
    canvas: tuple[int, int] = CANVAS  # width and height of the image in pixels


class Sizes(NamedTuple):
    """Numbers of scenes of shapes in each split, from which all other numbers follow."""

    train: int
    heldout: int
    pretrain: int


def build(folder, seed, sizes, workers, canvas=CANVAS):
    """Draws the images and writes every file below `folder`, which must exist and be empty."""
    jobs = [job._replace(canvas=canvas) for job in _jobs(seed, sizes)]
    scenes = dict(_draw_all(folder, jobs, workers))
    layouts.write_json(folder / "scenes.json", scenes)
    if sizes.train:
        _write_train(folder, _of_split(scenes, "train"), seed, sizes.train // 2)
    if sizes.heldout:
        _write_heldout(folder, _of_split(scenes, "heldout"), seed, sizes.heldout)
    if sizes.pretrain:
        _write_pretrain(folder, _of_split(scenes, "pretrain"), seed)


def _jobs(seed, sizes):
    train, heldout, pretrain = sizes
    yield from _split_jobs(seed, "train", {"shapes": train, "word": train // 4, "digits": train * 5 // 12})
    yield from _split_jobs(seed, "heldout", {"shapes": heldout, "word": heldout // 2, "digits": heldout // 2})
    words, digits = (round(pretrain * share) for _, share in PRETRAIN_MIX[1:])
    yield from _split_jobs(seed, "pretrain", {"shapes": pretrain - words - digits, "word": words, "digits": digits})


def _split_jobs(seed, split, counts):
    number = FIRST_ID[split]
    for kind, count in counts.items():
        for index in range(count):
            job = Job(f"{split}/{number:012d}.png", (seed, number), kind, split)
            number += 1
            if kind == "shapes":
                job = job._replace(described=split == "heldout" or split == "train" and index % 3 == 0)
                if split == "heldout":  # of 12 scenes, 4 have one object, 6 two, 1 three and 1 four
                    job = job._replace(count=(1, 2, 2, 1, 2, 3, 1, 2, 2, 1, 2, 4)[index % 12], unseen=index % 20 < 7)
            yield job


def _draw_all(folder, jobs, workers):
    for job in jobs:
        (folder / "images" / job.image).parent.mkdir(parents=True, exist_ok=True)
        if job.described:
            _described(folder, job).parent.mkdir(parents=True, exist_ok=True)
    bar = dict(total=len(jobs), desc="images", unit="", mininterval=0.5)
    if workers < 2:
        return list(tqdm((_draw(folder, job) for job in jobs), **bar))
    scan_split()  # cached here, before the processes are forked
    with ProcessPoolExecutor(workers) as pool:
        return list(tqdm(pool.map(_draw, [folder] * len(jobs), jobs, chunksize=100), **bar))


def _draw(folder, job):
    rng = np.random.default_rng(job.seed)
    facts = draw_scene(job.kind, job.split, rng, job.count, job.unseen, job.canvas)
    image = Image.fromarray(draw_image(facts, rng, job.canvas))
    image.save(folder / "images" / job.image, compress_level=1)
    if job.described:
        image.save(_described(folder, job), quality=95, subsampling=0)
    return job.image, facts


def _described(folder, job):
    return folder / "cc_sbu_align" / job.split / "image" / (job.image.rsplit("/", 1)[1][:-4] + ".jpg")


def _of_split(scenes, split):
    """{kind: [(image, facts)]} of one split."""
    by_kind = {"shapes": [], "word": [], "digits": []}
    for image, facts in scenes.items():
        if facts["split"] == split:
            by_kind[facts["kind"]].append((image, facts))
    return by_kind


def _write_train(folder, scenes, seed, text_count):
    shapes = scenes["shapes"]
    for family in FAMILIES:
        rng = _rng(seed, "train", family)
        pairs = [pair for pair in shapes if rng.random() < QUESTION_SHARE]
        records = layouts.aokvqa_records(family, "train", layouts.ask(family, pairs, rng))
        layouts.write_json(folder / f"aokvqa/train_{family}.json", records)
    rng = _rng(seed, "train", "dialogue")
    pairs = [pair for pair in shapes if rng.random() < QUESTION_SHARE]
    layouts.write_json(folder / "llava/train_dialogue.json", layouts.llava_records(pairs, rng))
    _write_shared(folder, "train", scenes, shapes, shapes[::3], seed, text_count)


def _write_heldout(folder, scenes, seed, count):
    many, few = count // 2, count // 6  # questions on scenes of one or two objects, and of more
    groups = [[p for p in scenes["shapes"] if (len(p[1]["objects"]) > 2) == crowded] for crowded in (False, True)]
    for family in FAMILIES:
        rng = _rng(seed, "heldout", family)
        pairs = [
            pair for group, quota in zip(groups, (many, few), strict=True) for pair in _quota(family, group, quota, rng)
        ]
        layouts.write_json(folder / f"aokvqa/heldout_{family}.json", layouts.aokvqa_records(family, "heldout", pairs))
    rng = _rng(seed, "heldout", "dialogue")
    records = [
        record
        for group, quota in zip(groups, (many, few), strict=True)
        for record in layouts.llava_records(rng.sample(group, len(group)), rng)[:quota]
    ]
    layouts.write_json(folder / "llava/heldout_dialogue.json", records)
    captioned = groups[0][:many] + groups[1][:few]
    _write_shared(folder, "heldout", scenes, captioned, scenes["shapes"], seed, many)


def _quota(family, scenes, quota, rng, passes=4):
    """Up to `quota` different (image, Question) pairs, in several passes over the scenes where one gives too few."""
    pairs = {}
    for _ in range(passes):
        for image, question in layouts.ask(family, rng.sample(scenes, len(scenes)), rng):
            if len(pairs) < quota:
                pairs.setdefault((image, question.text), (image, question))
    return list(pairs.values())


def _write_shared(folder, split, scenes, captioned, described, seed, text_count):
    layouts.write_json(folder / f"coco_caption/{split}.json", layouts.coco_records(captioned))
    for name, kind in (("words", "word"), ("digits", "digits")):
        records = layouts.ocr_vqa_records(scenes[kind], split, _rng(seed, split, name))
        layouts.write_json(folder / f"ocr_vqa/{split}_{name}.json", records)
    layouts.write_json(folder / f"cc_sbu_align/{split}/filter_cap.json", layouts.cc_sbu_annotations(described))
    dolly, alpaca, baize = (
        _distinct(task, split, text_count, _rng(seed, split, task.__name__))
        for task in (text_tasks.dolly, text_tasks.alpaca, text_tasks.baize)
    )
    layouts.write_json_lines(folder / f"dolly/{split}.jsonl", dolly)
    layouts.write_json(folder / f"alpaca_gpt4/{split}.json", alpaca)
    layouts.write_json(folder / f"baize/{split}.json", baize)


def _distinct(task, split, count, rng, tries=20):
    """Up to `count` different records of a text task."""
    records = {}
    for _ in range(tries * count):
        record = text_tasks.draw_task(task, split, rng)
        records.setdefault(str(record), record)
        if len(records) == count:
            break
    return list(records.values())


def _write_pretrain(folder, scenes, seed):
    pairs = [pair for kind in ("shapes", "word", "digits") for pair in scenes[kind]]
    records = layouts.statement_records(pairs, _rng(seed, "pretrain", "statements"))
    layouts.write_json(folder / "pretrain/captions.json", records)
    layouts.write_json(folder / "pretrain/pairs.json", layouts.distinguishing_records(records, pairs))
    rng = _rng(seed, "pretrain", "text")
    lines = [text_tasks.draw_task(text_tasks.plain_line, "pretrain", rng) for _ in range(min(20_000, len(pairs)))]
    layouts.write_json(folder / "pretrain/text.json", [dict(instruction="", input="", output=line) for line in lines])


def _rng(seed, *names):
    """The random generator of one file; with one a file, a change of one file leaves the others as they are."""
    return random.Random("/".join(map(str, (seed, *names))))
