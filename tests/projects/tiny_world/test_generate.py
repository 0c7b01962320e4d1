"""The files of the tiny world: complete, deterministic, with right answers, readable by mmgpt's parsers."""

import json
import re
from argparse import Namespace
from pathlib import Path

import generate
import numpy as np
import pytest
from generator import build as generator_build
from generator.drawing import scan_split
from generator.vocabulary import (
    CANVAS,
    COLOURS,
    DIGITS,
    NUMBERS,
    POSITION_NAMES,
    POSITIONS,
    RADII,
    RELATIONS,
    SHAPES,
    UNSEEN_PAIRS,
    WORDS,
)
from PIL import Image

from mmgpt.cli import load_config

ROOT = Path(__file__).resolve().parents[3]

SHAPE_FAMILIES = "colour shape colour_options shape_options count position yes_no relation rationale".split()


def make(out, *options):
    generate.main([str(out), "--workers", "1", *map(str, options)])
    return out


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    out = tmp_path_factory.mktemp("data") / "tiny"
    return make(out, "--train-scenes", 120, "--heldout-scenes", 480, "--pretrain-scenes", 120)


@pytest.fixture(scope="module")
def scenes(world):
    return read(world / "scenes.json")


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_same_arguments_make_the_same_bytes_with_any_number_of_processes(tmp_path):
    sizes = ("--train-scenes", 12, "--heldout-scenes", 12, "--pretrain-scenes", 12)
    one = contents(make(tmp_path / "one", *sizes))
    assert contents(make(tmp_path / "two", *sizes, "--workers", 2)) == one
    assert contents(make(tmp_path / "other", *sizes, "--seed", 1)) != one


def test_complete_data_is_reused_and_other_data_replaced_only_with_overwrite(tmp_path, capsys):
    out = make(tmp_path / "tiny", "--train-scenes", 12, "--heldout-scenes", 0)
    before = (out / "scenes.json").stat().st_mtime_ns
    make(out, "--train-scenes", 12, "--heldout-scenes", 0)
    assert "nothing to do" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="'train_scenes': 12.*'train_scenes': 24.*--overwrite"):
        make(out, "--train-scenes", 24, "--heldout-scenes", 0)
    assert (out / "scenes.json").stat().st_mtime_ns == before
    make(out, "--train-scenes", 24, "--heldout-scenes", 0, "--overwrite")
    assert sum(s["kind"] == "shapes" for s in read(out / "scenes.json").values()) == 24


def test_a_folder_of_other_files_is_never_replaced(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(SystemExit, match="was not made by this tool"):
        make(tmp_path, "--overwrite")
    assert (tmp_path / "thesis.txt").exists()


def test_an_interrupted_run_leaves_no_folder(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(generator_build, "_write_train", interrupt)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "tiny", "--train-scenes", 6, "--heldout-scenes", 0)
    assert not (tmp_path / "tiny").exists()
    monkeypatch.undo()
    assert (make(tmp_path / "tiny", "--train-scenes", 6, "--heldout-scenes", 0) / "scenes.json").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


def test_a_changed_generator_makes_old_data_stale(monkeypatch, tmp_path):
    args = Namespace(seed=0, train_scenes=1, heldout_scenes=0, pretrain_scenes=0, canvas=CANVAS)
    before = generate.receipt(args)
    monkeypatch.setattr(generate.zlib, "crc32", lambda data: 1)
    assert generate.receipt(args)["generator"] != before["generator"]


def test_unseen_pairs_are_only_in_held_out_scenes(world, scenes):
    seen = [s for s in scenes.values() if s["split"] != "heldout"]
    assert not any(s["unseen"] or pairs(s) & set(UNSEEN_PAIRS) for s in seen)
    assert all(s["unseen"] == bool(pairs(s) & set(UNSEEN_PAIRS)) for s in scenes.values())
    held_out = [s["unseen"] for s in scenes.values() if s["split"] == "heldout" and s["kind"] == "shapes"]
    assert 0.3 <= sum(held_out) / len(held_out) <= 0.6
    named = re.compile("|".join(" ".join(pair) for pair in UNSEEN_PAIRS))
    visual = [world / "pretrain/captions.json", *world.glob("*/train*.json"), *world.glob("cc_sbu_align/train/*.json")]
    for path in visual:
        if path.parent.name not in ("alpaca_gpt4", "baize"):
            assert not named.search(path.read_text()), path


def pairs(scene):
    return {(o["colour"], o["shape"]) for o in scene["objects"]}


def test_unseen_pairs_share_no_colour_and_no_shape():
    assert len({colour for colour, _ in UNSEEN_PAIRS}) == len({shape for _, shape in UNSEEN_PAIRS}) == 4


def test_digits_are_split_by_scan(scenes):
    used = {"train": set(), "heldout": set(), "pretrain": set()}
    for scene in scenes.values():
        used[scene["split"]].update(digit["scan"] for digit in scene["digits"])
    assert all(used.values())
    assert not (used["train"] | used["pretrain"]) & used["heldout"]
    assert sorted([*scan_split()["train"], *scan_split()["heldout"]]) == list(range(1797))


def test_objects_of_a_scene_are_distinct_and_inside_the_image(scenes):
    for scene in scenes.values():
        objects = scene["objects"]
        assert len(objects) == len(pairs(scene)) == len({(o["row"], o["col"]) for o in objects})
        for box in [o["box"] for o in objects + scene["digits"]] + ([scene["box"]] if scene["word"] else []):
            assert 0 <= box[0] < box[2] <= 64
            assert 0 <= box[1] < box[3] <= 64
        for o in objects:
            assert (o["size"] == "large") == (o["box"][2] - o["box"][0] >= 17)
            assert abs((o["box"][0] + o["box"][2]) / 2 - (o["col"] + 0.5) * 64 / 3) < 2.6
    counts = [len(s["objects"]) for s in scenes.values() if s["split"] == "pretrain" and s["kind"] == "shapes"]
    assert set(counts) == {1, 2, 3, 4}


def test_images_show_their_scenes(world, scenes):
    names = list(COLOURS)
    for image, scene in scenes.items():
        pixels = np.asarray(Image.open(world / "images" / image)).astype(int)
        assert pixels.shape == (64, 64, 3)
        for o in scene["objects"]:
            x0, y0, x1, y1 = o["box"]
            middle = pixels[round((y0 + y1) / 2), round((x0 + x1) / 2)]
            nearest = min(names, key=lambda name: np.abs(np.array(COLOURS[name]) - middle).sum())
            assert nearest == o["colour"], image
        for box in [d["box"] for d in scene["digits"]] + ([scene["box"]] if scene["word"] else []):
            x0, y0, x1, y1 = box
            grey = pixels[y0:y1, x0:x1].mean(axis=-1)
            assert grey.max() - grey.min() > 60, image


def records(world, split, family):
    return read(world / f"aokvqa/{split}_{family}.json")


@pytest.mark.parametrize("family", SHAPE_FAMILIES)
def test_each_family_has_its_held_out_questions(world, scenes, family):
    found = records(world, "heldout", family)
    simple = [r for r in found if len(scenes[r["image"]]["objects"]) <= 2]
    assert len(simple) == 240
    assert len(found) - len(simple) >= 60
    assert len({(r["image"], r["question"]) for r in found}) == len(found)


@pytest.mark.parametrize("split", ["train", "heldout"])
@pytest.mark.parametrize("family", SHAPE_FAMILIES)
def test_answers_follow_from_the_scene(world, scenes, split, family):
    for record in records(world, split, family):
        scene = scenes[record["image"]]
        assert scene["split"] == split == record["split"]
        assert record["image_id"] == int(Path(record["image"]).stem)
        answer = record["choices"][record["correct_choice_idx"]]
        assert answer == solve(record["question"], scene["objects"]), record
        assert record["direct_answers"] == [answer] * 10
        assert len(set(record["choices"])) == 4
        assert len(record["rationales"]) == 3
        assert all(is_true(reason, scene["objects"]) for reason in record["rationales"]), record


def matching(objects, words):
    """Objects that fit all of 'red circle', 'circles', 'red shapes' and the like."""
    left = list(objects)
    for word in words.split():
        stem = word[:-2] if word.endswith("sses") else word.removesuffix("s") if word != "cross" else word
        if stem not in ("shape", "one"):
            left = [o for o in left if stem in (o["colour"], o["shape"])]
    return left


def the(objects, words):
    [only] = matching(objects, words)
    return only


def cell(thing):
    return POSITIONS[thing["row"]][thing["col"]]


def seen_from(one, two):
    return RELATIONS[1 + np.sign(one["row"] - two["row"])][1 + np.sign(one["col"] - two["col"])]


SOLUTIONS = (
    (r"What colour is the (.+)\?", lambda objects, a: the(objects, a)["colour"]),
    (r"Which colour does the (.+) have\?", lambda objects, a: the(objects, a)["colour"]),
    (r"What shape is the (.+)\?", lambda objects, a: the(objects, a)["shape"]),
    (r"Which shape is (\w+)\?", lambda objects, a: the(objects, a)["shape"]),
    (r"(?:How many|What is the number of) (.+?)(?: are there)?\?", lambda objs, a: NUMBERS[len(matching(objs, a))]),
    (r"Where is the (.+) relative to the (.+)\?", lambda objs, a, b: seen_from(the(objs, a), the(objs, b))),
    (r"Seen from the (.+), where is the (.+)\?", lambda objs, a, b: seen_from(the(objs, b), the(objs, a))),
    (r"(?:Where is|What is the position of) the (.+)\?", lambda objects, a: cell(the(objects, a))),
    (r"(?:Is there|Do you see) an? (.+)\?", lambda objects, a: "yes" if matching(objects, a) else "no"),
)


def solve(question, objects):
    """The answer, worked out anew from the question's words."""
    for pattern, solution in SOLUTIONS:
        if found := re.fullmatch(pattern, question):
            return solution(objects, *found.groups())
    raise ValueError(question)


FACTS = (
    (r"there is no (.+)", lambda objects, a: not matching(objects, a)),
    (r"there (?:is|are) (\w+) shapes?", lambda objects, a: len(objects) == NUMBERS.index(a)),
    (r"the number of (.+) is (\w+)", lambda objects, a, b: len(matching(objects, a)) == NUMBERS.index(b)),
    (r"the (.+) is (?:at|in) the (.+)", lambda objects, a, b: cell(the(objects, a)) == b),
    (r"(?:at|in) the (.+) is an? (.+)", lambda objects, a, b: cell(the(objects, b)) == a),
    (r"the (.+) is (small|large)", lambda objects, a, b: the(objects, a)["size"] == b),
    (r"the (\w+ \w+) is (.+?)(?: of)? the (.+)", lambda objs, a, b, c: seen_from(the(objs, a), the(objs, c)) == b),
    (r"relative to the (\w+ \w+) the (\w+ \w+) is (.+)", lambda o, a, b, c: seen_from(the(o, b), the(o, a)) == c),
    (r"the (\w+) shape is an? (\w+)", lambda objects, a, b: the(objects, a)["shape"] == b),
    (r"the (\w+) is (\w+)", lambda objects, a, b: the(objects, a)["colour"] == b),
    (r"an? (.+): (yes|no)", lambda objects, a, b: bool(matching(objects, a)) == (b == "yes")),
)


def is_true(sentence, objects):
    """Whether a statement holds, worked out anew from its words."""
    for pattern, holds in FACTS:
        if found := re.fullmatch(pattern, sentence.removesuffix(".")):
            return holds(objects, *found.groups())
    raise ValueError(sentence)


def caption_of(objects):
    ordered = sorted(objects, key=lambda o: (o["row"], o["col"]))
    parts = [
        f"a {o['size']} {o['colour']} {o['shape']} {'in' if cell(o) == 'centre' else 'at'} the {cell(o)}"
        for o in ordered
    ]
    return re.sub(r"(.*); ", r"\1 and ", "; ".join(parts)).replace("; ", ", ")


def test_pretraining_statements_are_true_and_of_every_kind(world, scenes):
    patterns, verdicts = set(), []
    for record in read(world / "pretrain/captions.json"):
        scene = scenes[record["image"]]
        assert scene["split"] == "pretrain"
        assert len(set(record["caption"])) == len(record["caption"])
        if scene["kind"] != "shapes":
            number = " ".join(str(d["digit"]) for d in scene["digits"])
            assert any(
                line in (f"the word is {scene['word']}.", f"the number is {number}.") for line in record["caption"]
            )
            continue
        caption = caption_of(scene["objects"])
        for line in record["caption"]:
            assert "?" not in line
            assert line == line.lower()
            assert line.endswith(".")
            if line.endswith(f"{caption}."):
                continue
            assert is_true(line, scene["objects"]), (line, scene)
            patterns.add(next(pattern for pattern, _ in FACTS if re.fullmatch(pattern, line[:-1])))
            verdicts += re.findall(r": (yes|no)\.", line)
    assert len(patterns) == len(FACTS) - 1  # 'there is no' is only a reason
    assert verdicts.count("yes") == verdicts.count("no")


def test_pretraining_pairs_are_statements_about_single_objects_among_several(world, scenes):
    whole = {record["image"]: record["caption"] for record in read(world / "pretrain/captions.json")}
    records = read(world / "pretrain/pairs.json")
    assert records
    assert len(records) < len(whole)
    for record in records:
        scene = scenes[record["image"]]
        assert len(scene["objects"]) > 1 or len(scene["digits"]) > 1
        assert set(record["caption"]) <= set(whole[record["image"]])
        if scene["kind"] == "shapes":
            assert any(re.fullmatch(r"the (\w+ shape is an? \w+|\w+ is \w+)\.", line) for line in record["caption"])
            assert not any(line.endswith(f"{caption_of(scene['objects'])}.") for line in record["caption"])


def test_pretraining_text_holds_no_question_and_no_instruction(world):
    lines = read(world / "pretrain/text.json")
    assert lines
    assert all(not line["instruction"] and not line["input"] and "?" not in line["output"] for line in lines)


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_captions_have_five_wordings_of_the_whole_scene(world, scenes, split):
    for record in read(world / f"coco_caption/{split}.json"):
        caption = caption_of(scenes[record["image"]]["objects"])
        assert len(set(record["caption"])) == 5
        assert record["caption"][0] == caption
        assert all(c.endswith(caption) for c in record["caption"])


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_answers_about_words_and_digits_follow_from_the_scene(world, scenes, split):
    for name in ("words", "digits"):
        found = read(world / f"ocr_vqa/{split}_{name}.json")
        assert len(found) == {"train words": 30, "train digits": 50}.get(f"{split} {name}", 240)
        for key, record in found.items():
            scene = scenes[record["filename"]]
            assert int(key) == int(Path(record["filename"]).stem)
            assert record["answers"] == [scene["word"] or " ".join(str(d["digit"]) for d in scene["digits"])]


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_the_third_turn_needs_the_image(world, scenes, split):
    found = read(world / f"llava/{split}_dialogue.json")
    for record in found:
        said = [message["value"] for message in record["conversations"]]
        assert len(said) == 6
        assert said[0].startswith("<image>\n")
        assert not any("<image>" in text for text in said[1:])
        objects = scenes[record["image"]]["objects"]
        first = said[0].removeprefix("<image>\n")
        assert solve(first, objects) == said[1]
        thing = the(objects, re.search(r"the (.+)\?", first)[1])
        asked = {
            "Where is it?": cell(thing),
            "What colour is it?": thing["colour"],
            "What shape is it?": thing["shape"],
        }
        assert said[5] == asked[said[4]]
        assert said[5] not in " ".join(said[:4])
    if split == "heldout":
        assert sum(len(scenes[r["image"]]["objects"]) <= 2 for r in found) == 240


def test_described_images_are_jpegs_named_after_their_id(world, scenes):
    for split in ("train", "heldout"):
        for record in read(world / f"cc_sbu_align/{split}/filter_cap.json")["annotations"]:
            image = Image.open(world / f"cc_sbu_align/{split}/image/{record['image_id']}.jpg")
            assert image.format == "JPEG"
            assert image.size == (64, 64)
            objects = scenes[f"{split}/{record['image_id']}.png"]["objects"]
            assert all(f"{o['size']} {o['colour']} {o['shape']} is" in record["caption"] for o in objects)


def test_the_projects_parsers_read_every_file(world):
    from mmgpt.datasets import parsers

    by_folder = {
        "aokvqa": parsers.aokvqa,
        "coco_caption": parsers.coco_caption,
        "pretrain": parsers.coco_caption,
        "ocr_vqa": parsers.ocr_vqa,
        "llava": parsers.llava,
        "alpaca_gpt4": parsers.alpaca,
        "baize": parsers.baize,
    }
    read_files = 0
    for folder, parser in by_folder.items():
        for path in sorted((world / folder).glob("*.json")):
            content = read(path)
            if path.name == "text.json":
                parser = parsers.alpaca
            for record in content.values() if isinstance(content, dict) else content:
                sample = parser(record)
                assert sample["turns"]
                assert all((world / "images" / image).is_file() for image in sample["images"])
            read_files += 1
    assert read_files == 2 * 9 + 2 + 3 + 4 + 2 + 2 + 2


def test_the_image_encoder_has_a_class_for_each_label_that_is_drawn():
    classes = load_config(ROOT / "projects/tiny_world/configs/tiny_pretrain_vision.py").classes
    drawn = dict(colour=COLOURS, shape=SHAPES, size=RADII, cell=range(len(POSITION_NAMES)), word=WORDS)
    assert classes == {name: list(values) for name, values in drawn.items()} | dict(digit=list(map(int, DIGITS)))


def test_a_larger_canvas_has_things_of_the_same_size_all_over_it(tmp_path):
    out = make(tmp_path / "wide", "--train-scenes", 96, "--heldout-scenes", 0, "--canvas", 192, 96)
    scenes = read(out / "scenes.json")
    sizes = {Image.open(out / "images" / name).size for name in scenes}
    assert sizes == {(192, 96)}
    boxes = np.array([s["box"] for s in scenes.values() if s["word"]])
    boxes = np.concatenate([boxes, [d["box"] for s in scenes.values() for d in s["digits"]]])
    assert boxes.min() >= 0
    assert np.all(boxes[:, 2:] <= (192, 96))
    assert boxes[:, 0].min() < 48
    assert boxes[:, 2].max() > 144
    assert (boxes[:, 3] - boxes[:, 1]).max() <= 20
    with pytest.raises(SystemExit, match=r"--canvas \[192, 32\]: the sides of an image are at least 64 pixels"):
        make(tmp_path / "flat", "--canvas", 192, 32)
