import pytest
import torch

from mmgpt.datasets import collate_conversations


def sample(length, images, source="visual"):
    pixels = torch.arange(images).float().view(-1, 1, 1, 1).expand(-1, 3, 2, 2) + 1 if images else None
    ids = torch.arange(1, length + 1)
    return {"pixels": pixels, "input_ids": ids, "labels": ids, "source": source, "meta": {"id": str(length)}}


@pytest.mark.parametrize("side", ["right", "left"])
def test_uneven_rows(side):
    batch = collate_conversations([sample(3, 1), sample(5, 2), sample(2, 0, "language")], 9, side)
    assert batch["image_counts"].tolist() == [1, 2, 0] and batch["image_counts"].dtype == torch.int64
    assert batch["pixels"].shape == (3, 2, 3, 2, 2)
    assert batch["pixels"][:, :, 0, 0, 0].tolist() == [[1, 0], [1, 2], [0, 0]]
    row = [1, 2, 3, 9, 9] if side == "right" else [9, 9, 1, 2, 3]
    assert batch["input_ids"][0].tolist() == row
    assert batch["labels"][0].tolist() == [-100 if token == 9 else token for token in row]
    assert batch["attention_mask"][0].tolist() == [int(token != 9) for token in row]
    assert batch["attention_mask"].dtype == torch.int64
    assert batch["sources"] == ["visual", "visual", "language"] and batch["metas"][1] == {"id": "5"}


def test_text_only_batch_has_no_pixels():
    batch = collate_conversations([sample(3, 0), sample(2, 0)])
    assert batch["pixels"] is None and batch["image_counts"].tolist() == [0, 0]


def test_unknown_side():
    with pytest.raises(ValueError, match="padding_side='top': choose among right, left"):
        collate_conversations([sample(3, 0)], padding_side="top")
