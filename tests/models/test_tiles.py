"""Images in several numbers of tiles: their grids, and a model that takes them together."""

import pytest
import torch
from PIL import Image

from mmgpt.apis import Chat, Conversation
from mmgpt.datasets import collate_conversations
from mmgpt.datasets.conversation import IMAGE_CONTENT, text_content
from mmgpt.datasets.instruction import build_pipeline
from mmgpt.datasets.transforms import PrepareImages
from mmgpt.models.tiles import best_grid, tile_places
from mmgpt.registry import MODELS
from tests.helpers.chat_pipeline import pipeline
from tests.helpers.tolerances import assert_close
from tests.helpers.transformers_generate import reference_generate

PREPARE = dict(type="PrepareImages", size=32, mean=[0.5] * 3, std=[0.5] * 3, tiles=dict(max=4))
SIZES = [(120, 60), (20, 20), (60, 60)]  # 2, 0 and 4 tiles


def test_places_are_numbered_alike_for_every_largest_number_of_tiles():
    assert tile_places(1) == [(1, 1, 0, 0)]
    assert tile_places(2)[1:] == [(1, 2, 0, 0), (1, 2, 0, 1), (2, 1, 0, 0), (2, 1, 1, 0)]
    assert tile_places(6)[: len(tile_places(4))] == tile_places(4)
    assert len(set(tile_places(6))) == len(tile_places(6)) == 57


@pytest.mark.parametrize(
    ("size", "grid"),
    [
        ((32, 32), (1, 1)),
        ((20, 7), (1, 1)),
        ((64, 32), (1, 2)),
        ((33, 20), (1, 2)),
        ((32, 640), (6, 1)),
        ((96, 48), (2, 3)),
        ((48, 96), (3, 2)),
        ((1000, 1000), (2, 2)),
        ((640, 480), (2, 3)),
    ],
)
def test_the_grid_keeps_most_pixels_with_the_fewest_tiles(size, grid):
    assert best_grid(size, (32, 32), 6) == grid


@pytest.fixture(scope="module")
def model(tiny_flamingo_config):
    torch.manual_seed(0)
    return MODELS.build(dict(tiny_flamingo_config, perceiver=dict(PERCEIVER, max_tiles=4))).eval()


PERCEIVER = dict(depth=2, num_latents=4, dim_head=8, heads=2)


def images(count):
    """Images of noise of the first SIZES."""
    generator = torch.Generator().manual_seed(0)
    values = [torch.randint(256, (height, width, 3), generator=generator) for width, height in SIZES[:count]]
    return [Image.fromarray(value.byte().numpy()) for value in values]


def sample(model, pictures, length):
    """A sample of PackInputs with these images at its beginning."""
    results = PrepareImages(**{key: value for key, value in PREPARE.items() if key != "type"})({"pil": pictures})
    ids = torch.arange(5, 5 + length)
    ids[: len(pictures)] = model.tokenizer.convert_tokens_to_ids("<image>")
    labels = torch.where(torch.arange(length) < 4, -100, ids)
    fields = {name: results[name] for name in ("pixels", "tile_ids")}
    return dict(fields, input_ids=ids, labels=labels, source="visual", meta=dict(id=str(length)))


@pytest.fixture
def samples(model):
    """Samples with two images of several numbers of tiles, with one, with an image that is not cut, and with none."""
    wide, small, large = images(3)
    return [
        sample(model, [small, large], 9),
        sample(model, [wide], 8),
        sample(model, [small], 7),
        sample(model, [], 6),
    ]


def losses(model, data, **options):
    batch = collate_conversations(data, **options)
    del batch["candidates"]
    return model(**batch, mode="loss")


def test_the_result_of_a_row_does_not_depend_on_the_tiles_of_others(model, samples):
    batch = collate_conversations(samples)
    assert batch["pixels"].shape == (4, 2, 5, 3, 32, 32)
    assert batch["tile_ids"].tolist() == [
        [[0, -1, -1, -1, -1], [0, 15, 16, 17, 18]],
        [[0, 1, 2, -1, -1], [-1] * 5],
        [[0, -1, -1, -1, -1], [-1] * 5],
        [[-1] * 5, [-1] * 5],
    ]
    logits = model(
        batch["input_ids"],
        batch["attention_mask"],
        batch["pixels"],
        tile_ids=batch["tile_ids"],
        image_counts=batch["image_counts"],
    )
    for row, alone in enumerate(samples):
        one = collate_conversations([alone])
        expected = model(one["input_ids"], pixels=one["pixels"], tile_ids=one["tile_ids"])
        assert_close(logits[row, : expected.shape[1]], expected[0])


def test_padding_is_not_encoded(model, samples, monkeypatch):
    encoded = []
    monkeypatch.setattr(
        model.vision, "forward", lambda x, forward=model.vision.forward: encoded.append(len(x)) or forward(x)
    )
    batch = collate_conversations(samples)
    latents = model.encode_images(batch["pixels"], batch["image_counts"], tile_ids=batch["tile_ids"])
    assert encoded == [1 + 5 + 3 + 1]
    assert latents.shape == (4, 2, 4, 32)
    # What stands in the padding does not matter.
    batch["pixels"][batch["tile_ids"] < 0] = float("nan")
    again = model.encode_images(batch["pixels"], batch["image_counts"], tile_ids=batch["tile_ids"])
    assert torch.equal(again, latents)


def test_every_tile_and_its_place_matter(model):
    batch = collate_conversations([sample(model, images(1), 8)])
    latents = model.encode_images(batch["pixels"], tile_ids=batch["tile_ids"])
    for frame in range(3):
        changed = batch["pixels"].clone()
        changed[0, 0, frame] += 1
        assert not torch.allclose(model.encode_images(changed, tile_ids=batch["tile_ids"]), latents)
    order = [0, 2, 1]
    swapped = model.encode_images(batch["pixels"][:, :, order], tile_ids=batch["tile_ids"][:, :, order])
    assert_close(swapped, latents)
    moved = model.encode_images(batch["pixels"][:, :, order], tile_ids=batch["tile_ids"])
    assert not torch.allclose(moved, latents)


def test_packed_rows_have_the_losses_and_gradients_of_plain_ones(model, samples):
    plain, packed = losses(model, samples), losses(model, samples, row_length=20)
    assert_close(packed["loss_visual"], plain["loss_visual"])
    gradients = []
    for loss in (plain, packed):
        model.zero_grad()
        loss["loss_visual"].backward()
        gradients.append(model.perceiver.frame_embs.grad.clone())
    assert_close(gradients[1], gradients[0])
    # The whole image, two tiles side by side, and four in a square.
    assert gradients[0].abs().sum(dim=1).nonzero()[:, 0].tolist() == [0, 1, 2, 15, 16, 17, 18]


def test_images_with_tiles_and_without_share_a_batch(model, samples):
    whole = PrepareImages(size=32, mean=[0.5] * 3, std=[0.5] * 3)({"pil": images(2)[1:]})
    untiled = dict(samples[2], pixels=whole["pixels"], tile_ids=None)
    mixed = losses(model, [samples[1], untiled])
    assert_close(mixed["loss_visual"], losses(model, samples[1:3])["loss_visual"])


@pytest.mark.parametrize("settings", [{}, dict(max_frames=3), dict(max_tiles=2)])
def test_a_resampler_without_the_places_is_refused(tiny_flamingo_config, samples, settings):
    model = MODELS.build(dict(tiny_flamingo_config, perceiver=dict(PERCEIVER, **settings)))
    known = {(): 0, ("max_frames",): 3, ("max_tiles",): 5}[tuple(settings)]
    words = rf"tiles in 19 places, the resampler \(PerceiverResampler\) has frame_embs for {known}: set its max_tiles"
    with pytest.raises(ValueError, match=words):
        losses(model, samples)
    with pytest.raises(ValueError, match="max of the tiles of PrepareImages"):
        Chat(model, build_pipeline([PREPARE, *pipeline(tiny_flamingo_config["language"]["path"], 200)[1:]]))


def test_chat_answers_about_tiles_alone_and_together(model, tiny_flamingo_config):
    chat = Chat(model, build_pipeline([PREPARE, *pipeline(tiny_flamingo_config["language"]["path"], 200)[1:]]))
    wide, small, large = images(3)
    conversations = [
        Conversation([{"question": [IMAGE_CONTENT] * len(pictures) + [text_content("what is it?")]}], pictures)
        for pictures in ([wide], [small, large], [large, wide], [wide.transpose(Image.Transpose.FLIP_LEFT_RIGHT)])
    ]
    generation = dict(max_new_tokens=6, num_beams=1)
    together = chat.answer_all(conversations, generation)
    assert len(set(together)) > 1
    for conversation, answer in zip(conversations, together, strict=True):
        inputs = chat.prepare(conversation)
        ids = reference_generate(model, **inputs, **generation)
        assert model.tokenizer.decode(ids[0], skip_special_tokens=True).strip() == answer
        assert torch.equal(model.generate(**inputs, **generation), ids)
    # In another order, beside images of other numbers of tiles, all come from the cache.
    encode, model.encode_images = model.encode_images, None
    try:
        assert chat.answer_all(conversations[::-1], generation) == together[::-1]
    finally:
        model.encode_images = encode
        chat.close()
