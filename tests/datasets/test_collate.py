import pytest
import torch

from mmgpt.datasets import collate_conversations
from mmgpt.datasets.collate import count_label_tokens


def sample(length, images, source="visual"):
    pixels = torch.arange(images).float().view(-1, 1, 1, 1).expand(-1, 3, 2, 2) + 1 if images else None
    ids = torch.arange(1, length + 1)
    return {"pixels": pixels, "input_ids": ids, "labels": ids, "source": source, "meta": {"id": str(length)}}


@pytest.mark.parametrize("side", ["right", "left"])
def test_uneven_rows(side):
    batch = collate_conversations([sample(3, 1), sample(5, 2), sample(2, 0, "language")], 9, side)
    assert batch["image_counts"].tolist() == [1, 2, 0]
    assert batch["image_counts"].dtype == torch.int64
    assert batch["pixels"].shape == (3, 2, 3, 2, 2)
    assert batch["pixels"][:, :, 0, 0, 0].tolist() == [[1, 0], [1, 2], [0, 0]]
    row = [1, 2, 3, 9, 9] if side == "right" else [9, 9, 1, 2, 3]
    assert batch["input_ids"][0].tolist() == row
    assert batch["labels"][0].tolist() == [-100 if token == 9 else token for token in row]
    assert batch["attention_mask"][0].tolist() == [int(token != 9) for token in row]
    assert batch["attention_mask"].dtype == torch.int64
    assert batch["sources"] == ["visual", "visual", "language"]
    assert batch["metas"][1] == {"id": "5"}


def test_text_only_batch_has_no_pixels():
    batch = collate_conversations([sample(3, 0), sample(2, 0)])
    assert batch["pixels"] is None
    assert batch["image_counts"].tolist() == [0, 0]


def test_unknown_side():
    with pytest.raises(ValueError, match="padding_side='top': choose among right, left"):
        collate_conversations([sample(3, 0)], padding_side="top")


def test_samples_that_share_rows():
    batch = collate_conversations([sample(3, 1), sample(5, 2), sample(2, 0, "language")], 9, row_length=6)
    assert batch["input_ids"].tolist() == [[1, 2, 3, 4, 5, 9], [1, 2, 3, 1, 2, 9]]
    assert batch["sample_ids"].tolist() == [[1, 1, 1, 1, 1, -1], [0, 0, 0, 2, 2, -1]]
    # The first token of a later sample does not follow from the sample before.
    assert batch["labels"].tolist() == [[1, 2, 3, 4, 5, -100], [1, 2, 3, -100, 2, -100]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 1, 0]] * 2
    assert batch["image_counts"].tolist() == [2, 1]
    assert batch["pixels"][:, :, 0, 0, 0].tolist() == [[1, 2], [1, 0]]
    assert batch["sources"] == ["visual", "visual", "language"]
    assert batch["metas"][1] == {"id": "5"}


def test_packed_rows_are_as_short_as_possible():
    samples = [sample(length, 0) for length in (70, 40, 30, 60, 50)]
    batch = collate_conversations(samples, 9, row_length=2048)
    assert batch["input_ids"].shape == batch["labels"].shape == batch["sample_ids"].shape == (1, 256)
    assert batch["attention_mask"].sum() == 250


def test_joining_samples_does_not_change_them():
    samples = [sample(3, 1), sample(2, 0)]
    collate_conversations(samples, row_length=6)
    assert [one["labels"].tolist() for one in samples] == [[1, 2, 3], [1, 2]]


def test_a_sample_longer_than_a_row_is_named():
    with pytest.raises(ValueError, match="id '7': 7 tokens, more than row_length=6"):
        collate_conversations([sample(3, 0), sample(7, 0)], row_length=6)


def test_rows_of_several_samples_are_not_padded_on_the_left():
    with pytest.raises(ValueError, match="row_length is for training"):
        collate_conversations([sample(3, 0)], padding_side="left", row_length=6)


def test_batch_without_samples_has_no_labels():
    batch = collate_conversations([], 9)
    assert batch.keys() == collate_conversations([sample(3, 0)]).keys()
    assert batch["input_ids"].tolist() == [[9]]
    assert batch["labels"].tolist() == [[-100]]
    assert batch["attention_mask"].tolist() == [[1]]
    assert batch["image_counts"].tolist() == [0]
    assert batch["pixels"] is None
    assert batch["sources"] == batch["metas"] == []
    assert collate_conversations([], 9, row_length=6)["sample_ids"] is None
    assert count_label_tokens(batch) == {"visual": 0, "language": 0}


@pytest.mark.parametrize("row_length", [None, 6])
def test_label_tokens_have_a_token_before_them(row_length):
    samples = [sample(3, 1), sample(5, 2), sample(4, 0, "language")]
    samples[1]["labels"] = torch.tensor([1, -100, -100, 4, 5])
    assert count_label_tokens(collate_conversations(samples, row_length=row_length)) == {"visual": 4, "language": 3}
