"""read_rows: what is shown of a batch is what the batch holds."""

import numpy as np
import pytest
import torch
from PIL import Image

from mmgpt.datasets import ImageControl, JointDataset, collate_conversations
from mmgpt.datasets.inspection.views import GAP, THUMBNAIL, dataset_name, read_rows, shown_datasets
from projects.tiny_world.patch_dataset import PatchLabelDataset


@pytest.fixture
def joint(build, caption_config, dolly_config):
    """Three image samples (plain pictures of 40 x 32 in their own greys), then two of text."""
    return build(
        dict(type="JointDataset", visual=[caption_config(3)], language=[dolly_config(["red", "one two yes no"])])
    )


def text(sample):
    return "".join(span.text for span in sample.spans)


def supervised(sample):
    return "".join(span.text for span in sample.spans if span.supervised)


def rows_of(dataset, indices, **options):
    batch = collate_conversations([dataset[i] for i in indices], **options)
    return batch, read_rows(batch, shown_datasets(dataset))


def test_tokens_labels_and_padding_of_every_row(joint):
    batch, rows = rows_of(joint, [1, 3, 4])
    length = batch["input_ids"].shape[1]
    for row, labels, mask in zip(rows, batch["labels"], batch["attention_mask"], strict=True):
        [sample] = row.samples
        assert row.tokens == mask.sum()
        assert row.supervised == (labels != -100).sum() > 0
        assert row.left == 0
        assert row.right == row.padding == length - row.tokens
        assert [i for span in sample.spans for i in span.ids] == batch["input_ids"][row.number, mask == 1].tolist()
    assert [supervised(row.samples[0]) for row in rows[1:]] == [" red</s>", " one two yes no</s>"]
    assert text(rows[2].samples[0]).endswith("what is 1\n\n### Response:\n one two yes no</s>")
    assert "<image>" not in text(rows[2].samples[0])
    assert "<image>" in text(rows[0].samples[0])


def test_padding_at_the_left(joint):
    batch, rows = rows_of(joint, [1, 3, 4], padding_side="left")
    for row, mask in zip(rows, batch["attention_mask"], strict=True):
        assert row.right == 0
        assert row.left == row.padding == (mask == 0).sum()
    assert supervised(rows[1].samples[0]) == " red</s>"
    assert rows[1].left > 0


def test_sample_has_its_origin(joint, tmp_path):
    _, rows = rows_of(joint, [2, 4])
    picture, language = (row.samples[0] for row in rows)
    assert picture[:5] == ("captions", "visual", str(tmp_path / "captions.json"), 2, "captions_2.png")
    assert language[:5] == ("dolly", "language", str(tmp_path / "dolly.jsonl"), 1, "1")
    assert language.shown_images == []
    assert language.images == 0


def test_images_are_those_of_the_model_and_of_the_files(joint, tmp_path):
    _, rows = rows_of(joint, [3, 0, 2])
    for row, value, number in ((rows[1], 20, 0), (rows[2], 100, 2)):
        [image] = row.samples[0].shown_images
        assert image.file == str(tmp_path / "images" / f"captions_{number}.png")
        assert image.number == 1
        assert image.prepared.size == (16, 16)
        assert np.all(np.asarray(image.prepared) == value)
        assert image.size == image.original.size == (40, 32)
        assert np.all(np.asarray(image.original) == value)


def test_extreme_originals_become_thumbnails(build, caption_config, tmp_path):
    dataset = build(caption_config(2))
    for i, size in enumerate([(20000, 20), (1, 1)]):
        Image.new("RGB", size, "red").save(tmp_path / "images" / f"captions_{i}.png")
    _, rows = rows_of(dataset, [0, 1])
    wide, dot = (row.samples[0].shown_images[0] for row in rows)
    assert wide.size == (20000, 20)
    assert wide.original.size == (THUMBNAIL, 1)
    assert dot.size == dot.original.size == (1, 1)
    assert dot.prepared.size == (16, 16)


def two_images(build, tmp_path, make_images, steps, max_length=400):
    folder = make_images("a.png", "b.png")
    line = '{"images": ["a.png", "b.png"], "turns": [{"question": [{"type": "image"}, {"type": "text", "text": "a"}, '
    (tmp_path / "two.jsonl").write_text(line + '{"type": "image"}], "answer": "yes"}]}\n')
    config = dict(type="InstructionDataset", parser="conversation", name="two", ann_file=str(tmp_path / "two.jsonl"))
    return build(config | dict(data_prefix=dict(img=str(folder)), pipeline=steps(16, max_length=max_length)))


def test_two_images_keep_their_order(build, tmp_path, make_images, steps):
    _, [row] = rows_of(two_images(build, tmp_path, make_images, steps), [0])
    assert [(p.number, np.asarray(p.prepared).mean()) for p in row.samples[0].shown_images] == [(1, 20), (2, 60)]
    assert [span.kind for span in row.samples[0].spans].count("image") == 2
    assert not row.samples[0].cut


def test_truncated_sample_is_marked(build, dolly_config):
    whole = build(dolly_config(["one two yes no"]))[0]["input_ids"]
    for limit, cut in ((len(whole), False), (len(whole) - 1, True), (len(whole) - 3, True)):
        _, [row] = rows_of(build(dolly_config(["one two yes no"], max_length=limit)), [0])
        assert (row.samples[0].cut, row.samples[0].limit, row.tokens) == (cut, limit, limit)


def test_a_sample_that_ends_with_another_special_token_is_not_cut(build, dolly_config, steps):
    def dataset(length):
        return build(dolly_config(["one"], pipeline=steps(template="openflamingo_vqa", max_length=length)))

    whole = len(dataset(100)[0]["input_ids"])
    for limit, cut in ((whole, False), (whole - 1, True)):
        _, [row] = rows_of(dataset(limit), [0])
        assert row.samples[0].cut == cut


def test_image_after_the_limit_is_counted_but_not_shown(build, tmp_path, make_images, steps):
    dataset = two_images(build, tmp_path, make_images, steps)
    batch, _ = rows_of(dataset, [0])
    batch["input_ids"][0, -4:], batch["pixels"] = 70, batch["pixels"][:, :1]
    image = (batch["input_ids"][0] == dataset[0]["input_ids"].max()).nonzero()
    assert len(image) == 2
    batch["input_ids"][0, image[1]] = 70
    [row] = read_rows(batch, shown_datasets(dataset))
    assert row.samples[0].images == 2
    assert len(row.samples[0].shown_images) == 1


def packed(samples, rows):
    """A batch as `collate_conversations` packs it: for each row the numbers of its samples, in order."""

    def pad(key, value):
        whole = [torch.cat([key(samples[i], i) for i in row]) for row in rows]
        return torch.nn.utils.rnn.pad_sequence(whole, batch_first=True, padding_value=value)

    images = [[samples[i]["pixels"] for i in row if samples[i]["pixels"] is not None] for row in rows]
    pixels = torch.nn.utils.rnn.pad_sequence([torch.cat(row) for row in images], batch_first=True)
    owners = pad(lambda sample, i: torch.full_like(sample["input_ids"], i), -1)
    return {
        "pixels": pixels,
        "image_counts": torch.tensor([sum(map(len, row)) for row in images]),
        "input_ids": pad(lambda sample, i: sample["input_ids"], 0),
        "labels": pad(lambda sample, i: sample["labels"], -100),
        "attention_mask": (owners >= 0).long(),
        "sample_ids": owners,
        "sources": [sample["source"] for sample in samples],
        "metas": [sample["meta"] for sample in samples],
    }


def test_packed_row_is_split_into_its_samples(joint):
    samples = [joint[i] for i in range(5)]
    batch = packed(samples, [[3, 1, 0], [4, 2]])
    rows = read_rows(batch, shown_datasets(joint))
    assert [[sample.id for sample in row.samples] for row in rows] == [
        ["0", "captions_1.png", "captions_0.png"],
        ["1", "captions_2.png"],
    ]
    for row, numbers in zip(rows, [[3, 1, 0], [4, 2]], strict=True):
        assert [sample.tokens for sample in row.samples] == [len(samples[i]["input_ids"]) for i in numbers]
        assert [text(sample)[:3] for sample in row.samples] == ["<s>"] * len(numbers)
        assert row.tokens + row.padding == batch["input_ids"].shape[1]
        assert row.left == 0
        assert row.padding == (batch["sample_ids"][row.number] == -1).sum()
    shown = [[(p.number, np.asarray(p.prepared).mean()) for p in sample.shown_images] for sample in rows[0].samples]
    assert shown == [[], [(1, 60)], [(2, 20)]]
    assert [p.number for p in rows[1].samples[1].shown_images] == [1]
    assert [row.number for row in read_rows(batch, shown_datasets(joint), only="captions")] == [0, 1]


def test_rows_of_one_dataset(joint):
    batch, _ = rows_of(joint, [0, 3, 1, 4])
    assert [row.number for row in read_rows(batch, shown_datasets(joint), only="captions")] == [0, 2]
    assert [row.number for row in read_rows(batch, shown_datasets(joint), only="dolly")] == [1, 3]


def test_datasets_of_other_types_are_refused(joint, build, caption_config, tmp_path):
    assert isinstance(joint, JointDataset)
    assert [dataset.name for dataset in shown_datasets(joint)] == ["captions", "dolly"]
    names = [dataset_name(joint, i) for i in (0, 2, 3, 4, 5, 8)]
    assert names == ["captions", "captions", "dolly", "dolly", "captions", "dolly"]
    single = build(caption_config(2))
    control = ImageControl(single, "other")
    assert shown_datasets(single) == shown_datasets(control) == [single]
    assert dataset_name(control, 1) == "captions"
    (tmp_path / "boxes.json").write_text('{"a.png": {"split": "train", "boxes": []}}')
    with pytest.raises(ValueError, match="type PatchLabelDataset cannot be shown"):
        shown_datasets(PatchLabelDataset({}, "train", ann_file=str(tmp_path / "boxes.json")))


def test_image_control_shows_the_shuffled_image(build, caption_config):
    _, rows = rows_of(ImageControl(build(caption_config(2)), "other"), [0, 1])
    for row, value in zip(rows, (60, 20), strict=True):
        [image] = row.samples[0].shown_images
        assert np.asarray(image.prepared).mean() == value
        assert image.file.endswith(f"_{value // 40}.png")


def test_a_tiled_image_is_shown_as_it_is_cut(build, caption_config, tmp_path):
    config = caption_config(2)
    prepare = next(step for step in config["pipeline"] if step["type"] == "PrepareImages")
    prepare["tiles"] = dict(max=4, resize_mode="squash")
    Image.fromarray(np.arange(16 * 32 * 3, dtype=np.uint8).reshape(16, 32, 3)).save(tmp_path / "images/captions_0.png")
    Image.new("RGB", (8, 8), "red").save(tmp_path / "images/captions_1.png")
    _, rows = rows_of(build(config), [0, 1])
    cut, small = (row.samples[0].shown_images[0] for row in rows)
    assert (cut.tiles, small.tiles) == (2, 0)
    # The whole image, and its two tiles beside it.
    assert cut.prepared.size == (3 * 16 + 3 * GAP, 16)
    shown = np.asarray(cut.prepared)
    assert np.array_equal(shown[:, -16:], np.asarray(cut.original)[:, 16:])
    assert np.all(shown[:, -16 - GAP : -16] == 255)
    assert small.prepared.size == (16, 16)
