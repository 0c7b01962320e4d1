# Small words and digits in images of 192 x 96 pixels, which are cut into two tiles of the image encoder's size: 64 % of
# the held-out questions are right, 32 % with the center crop alone and 27 % with plain resizing, and a step takes 1.35
# times as long. Six tiles (tiles.max and perceiver.max_tiles) get 72 % right, in 2.3 times as long (docs/data.md).
#   python projects/tiny_world/generate.py data/tiny_wide --canvas 192 96 --train-scenes 12000 --heldout-scenes 600
#   python tools/dataset_converters/cache_features.py configs/mmgpt/tiny_tiles.py
# Without tiles: --cfg-options tiles=None feature_cache=work_dirs/tiny_wide_crop, and for plain resizing
# resize_mode=squash too, with a cache of its own.
_base_ = "./tiny_lora_joint.py"

data_root = "data/tiny_wide"
feature_cache = "work_dirs/tiny_wide_tiles"
image_steps = "${feature_steps}"
resize_mode = "shortest"
tiles = dict(max=2, resize_mode="longest")
prepare_images = dict(resize_mode="${resize_mode}", tiles="${tiles}")
# The tiny base knows no tiles: the resampler learns the embeddings of their places, and is trained in full.
perceiver = dict(max_tiles=2)
model = dict(train=["perceiver"])

words = dict(sample=None)
digits = dict(sample=None)
max_epochs = 3
train_dataloader = dict(
    dataset=dict(visual=["${words}", "${digits}"], language=[]), batch_sampler=dict(language_batch_size=0)
)
test_dataloader = dict(dataset=dict(visual=_base_.test_dataloader.dataset.visual[10:12], language=[]))
test_evaluator = dict(groups=dict(_delete_=True, visual=["words", "digits"]))
