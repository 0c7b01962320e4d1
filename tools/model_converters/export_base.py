"""Writes the parts of a trained model as a base that other configs load: language, vision, flamingo.safetensors.

    python tools/model_converters/export_base.py configs/mmgpt/tiny_pretrain_vision.py CHECKPOINT checkpoints/tiny
    python tools/model_converters/export_base.py configs/mmgpt/tiny_pretrain.py CHECKPOINT checkpoints/tiny

Each call writes the parts that its model trained and leaves the others.
"""

import argparse
from pathlib import Path

from mmgpt.apis import build_model
from mmgpt.engine import load_config, tool
from mmgpt.models import Flamingo
from mmgpt.models.export import save_language, save_parts, save_vision


def main() -> None:
    """Load the checkpoint and write the parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="config that trained the checkpoint")
    parser.add_argument("checkpoint", help="what the training wrote")
    parser.add_argument("out", type=Path, help="folder of the base")
    args = parser.parse_args()
    cfg = load_config(args.config)
    model = build_model(cfg, args.checkpoint, device="cpu")
    if isinstance(model, Flamingo):
        save_language(model, str(args.out / "language"))
        save_parts(model, str(args.out / "flamingo.safetensors"))
    else:
        save_vision(model.vision, cfg.model.vision.model, str(args.out / "vision"))


if __name__ == "__main__":
    tool.run(main)
