import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from mmgpt.models.vision.fingerprint import is_known, write_probe
from mmgpt.registry import MODELS
from tests.helpers.tolerances import assert_close

PIXELS = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def tower(tiny_clip):
    return MODELS.build(dict(type="OpenCLIPVision", path=tiny_clip))


def test_an_encoder_is_known_again(tower, tiny_clip, tmp_path):
    assert not is_known(tower, tmp_path / "nowhere") and not is_known(tower, tmp_path)
    write_probe(tower.train(), PIXELS, tmp_path)
    assert tower.training and [file.name for file in tmp_path.iterdir()] == ["tower.safetensors"]
    assert is_known(MODELS.build(dict(type="OpenCLIPVision", path=tiny_clip)).eval(), tmp_path)
    probe = load_file(tmp_path / "tower.safetensors")
    assert_close(probe["features"], tower.eval()(PIXELS).detach())
    assert torch.equal(probe["pixels"], PIXELS)


@pytest.mark.parametrize("change", [dict(final_norm=True), dict(layer=0), dict(quick_gelu=True)])
def test_other_settings_are_another_encoder(tower, tiny_clip, tmp_path, change):
    write_probe(tower, PIXELS, tmp_path)
    with pytest.raises(ValueError, match=f"features in {tmp_path} are of another image encoder"):
        is_known(MODELS.build(dict(type="OpenCLIPVision", path=tiny_clip, **change)), tmp_path)


def test_other_weights_are_another_encoder(tower, tmp_path):
    write_probe(tower, PIXELS, tmp_path)
    with torch.no_grad():
        tower.tower.transformer.resblocks[1].mlp.c_fc.weight.mul_(1.1)
    with pytest.raises(ValueError, match="of another image encoder"):
        is_known(tower, tmp_path)


def test_another_shape_is_another_encoder(tower, tiny_clip, tmp_path):
    config = json.loads(open(f"{tiny_clip}/open_clip_config.json").read())["model_cfg"]
    config["vision_cfg"]["patch_size"] = 16
    (tmp_path / "coarse.json").write_text(json.dumps(config))
    write_probe(tower, PIXELS, tmp_path)
    with pytest.raises(ValueError, match="of another image encoder"):
        is_known(MODELS.build(dict(type="OpenCLIPVision", model=str(tmp_path / "coarse.json"))), tmp_path)


def test_numbers_that_are_none_are_another_encoder(tower, tmp_path):
    save_file({"pixels": PIXELS, "features": torch.full((1, 16, 32), torch.nan)}, tmp_path / "tower.safetensors")
    with pytest.raises(ValueError, match="of another image encoder"):
        is_known(tower, tmp_path)
