# Trains the tiny image encoder alone: colour, shape, size, grid cell, word and digit of every 8 x 8 patch.
_base_ = ["../_base_/schedules/tiny.py", "../_base_/default_runtime.py"]

data_root = "data/tiny_pretrain"
lr = 3e-3
max_epochs = 6
warmup_iters = 100
# MMEngine's own sampler cannot skip the batches that a run has done, so that a resumed run starts with an epoch.
default_hooks = dict(checkpoint=dict(interval=1, by_epoch=True))

classes = dict(
    colour=["red", "green", "blue", "yellow", "purple", "orange", "cyan", "pink"],
    shape=["circle", "square", "triangle", "star", "cross"],
    size=["small", "large"],
    cell=list(range(9)),
    word=(
        "moon cat dog sun tree fish bird book house apple bread milk ship rain snow wind "
        "fire lake rock sand door lamp ring bell cup hat key map pen bus king horse"
    ).split(),
    digit=list(range(10)),
)

model = dict(
    type="PatchClassifier",
    vision=dict(type="OpenCLIPVision", model="configs/_base_/models/tiny_tower.json", layer=2),
    heads={name: 1 + len(values) for name, values in classes.items()},
    background_weight=0.1,
)

train_dataloader = dict(
    batch_size=32,
    num_workers=0,
    dataset=dict(
        type="PatchLabelDataset",
        classes="${classes}",
        split="pretrain",
        grey=0.3,
        data_root="${data_root}",
        ann_file="scenes.json",
        data_prefix=dict(img="images"),
    ),
    sampler=dict(type="DefaultSampler", shuffle=True),
    collate_fn=dict(type="default_collate"),
)
