import pytest
import torch

from mmgpt.models import PerceiverResampler
from tests.helpers.tolerances import assert_close


def test_images_are_resampled_one_by_one():
    torch.manual_seed(0)
    model = PerceiverResampler(16, depth=2, num_latents=3, dim_head=4, heads=2)
    x = torch.randn(2, 3, 1, 5, 16)
    out = model(x)
    assert out.shape == (2, 3, 3, 16)
    assert_close(out[1, 2], model(x[1:, 2:])[0, 0])


def test_order_of_patches_does_not_matter_but_their_content_does():
    model = PerceiverResampler(16, depth=1, num_latents=3, dim_head=4, heads=2)
    x = torch.randn(1, 1, 1, 5, 16)
    assert_close(model(x), model(x.flip(3)))
    assert not torch.allclose(model(x), model(x + torch.randn_like(x)))


def test_frame_and_media_embeddings_tell_positions_apart():
    model = PerceiverResampler(16, depth=1, num_latents=2, dim_head=4, heads=2, max_frames=2, max_media=3)
    one = torch.randn(1, 1, 1, 5, 16)
    out = model(one.expand(1, 3, 1, 5, 16))
    assert not torch.allclose(out[0, 0], out[0, 1])
    frames = torch.cat((one, torch.randn_like(one)), dim=2)
    assert not torch.allclose(model(frames), model(frames.flip(2)))
    with pytest.raises(ValueError, match="4 images in a sample, but the resampler has embeddings for 3"):
        model(one.expand(1, 4, 1, 5, 16))
    with pytest.raises(ValueError, match="3 frames"):
        model(one.expand(1, 1, 3, 5, 16))


def test_frames_and_tiles_are_not_chosen_together():
    assert PerceiverResampler(16, depth=1, dim_head=4, heads=2, max_tiles=6).frame_embs.shape == (57, 16)
    with pytest.raises(ValueError, match="max_frames=2 and max_tiles=6: choose one of them"):
        PerceiverResampler(16, max_frames=2, max_tiles=6)
