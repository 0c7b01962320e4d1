import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from mmgpt.models.vision.fingerprint import check_fingerprint, write_fingerprint
from mmgpt.registry import MODELS
from tests.helpers.tolerances import assert_close

PIXELS = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def encoder(tiny_clip):
    return MODELS.build(dict(type="OpenCLIPVision", path=tiny_clip))


def test_an_encoder_check_fingerprint_again(encoder, tiny_clip, tmp_path):
    assert not check_fingerprint(encoder, tmp_path / "nowhere")
    assert not check_fingerprint(encoder, tmp_path)
    write_fingerprint(encoder.train(), PIXELS, tmp_path)
    assert encoder.training
    assert [file.name for file in tmp_path.iterdir()] == ["tower.safetensors"]
    assert check_fingerprint(MODELS.build(dict(type="OpenCLIPVision", path=tiny_clip)).eval(), tmp_path)
    fingerprint = load_file(tmp_path / "tower.safetensors")
    assert_close(fingerprint["features"], encoder.eval()(PIXELS).detach())
    assert torch.equal(fingerprint["pixels"], PIXELS)


@pytest.mark.parametrize("change", [dict(final_norm=True), dict(layer=0), dict(quick_gelu=True)])
def test_other_settings_are_another_encoder(encoder, tiny_clip, tmp_path, change):
    write_fingerprint(encoder, PIXELS, tmp_path)
    with pytest.raises(ValueError, match=f"features in {tmp_path} are of another image encoder"):
        check_fingerprint(MODELS.build(dict(type="OpenCLIPVision", path=tiny_clip, **change)), tmp_path)


def test_other_weights_are_another_encoder(encoder, tmp_path):
    write_fingerprint(encoder, PIXELS, tmp_path)
    with torch.no_grad():
        encoder.tower.transformer.resblocks[1].mlp.c_fc.weight.mul_(1.1)
    with pytest.raises(ValueError, match="of another image encoder"):
        check_fingerprint(encoder, tmp_path)


def test_another_shape_is_another_encoder(encoder, tiny_clip, tmp_path):
    config = json.loads(open(f"{tiny_clip}/open_clip_config.json").read())["model_cfg"]
    config["vision_cfg"]["patch_size"] = 16
    (tmp_path / "coarse.json").write_text(json.dumps(config))
    write_fingerprint(encoder, PIXELS, tmp_path)
    with pytest.raises(ValueError, match="of another image encoder"):
        check_fingerprint(MODELS.build(dict(type="OpenCLIPVision", model=str(tmp_path / "coarse.json"))), tmp_path)


def test_nan_is_another_encoder(encoder, tmp_path):
    save_file({"pixels": PIXELS, "features": torch.full((1, 16, 32), torch.nan)}, tmp_path / "tower.safetensors")
    with pytest.raises(ValueError, match="of another image encoder"):
        check_fingerprint(encoder, tmp_path)
