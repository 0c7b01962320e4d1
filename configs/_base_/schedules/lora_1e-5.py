# The recipe of MultiModal-GPT: AdamW at 1e-5, 100 warm-up steps, cosine, one epoch over the visual data. Only the
# matrices of the gated cross-attention blocks have weight decay. On each GPU a step has 16 batches of one sample.
lr = 1e-5
accumulative_counts = 16
# The warm-up is counted in batches: 100 steps of 16. With 0 or 1 there is none, and one that is longer than the run is
# cut to a twentieth of it.
warmup_iters = 1600
max_epochs = 1

optim_wrapper = dict(
    type="OptimWrapper",
    constructor="TrainableOptimWrapperConstructor",
    paramwise_cfg=dict(decayed="gated"),
    optimizer=dict(type="AdamW", lr="${lr}", weight_decay=0.1),
    clip_grad=dict(max_norm=1.0),
    accumulative_counts="${accumulative_counts}",
)

# The two factors multiply: at batch number `warmup_iters` the rate is `lr`, less what the cosine has taken until then.
# The cosine, without an end of its own, takes the whole run.
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-3, by_epoch=False, begin=0, end="${warmup_iters}"),
    dict(type="CosineAnnealingLR", by_epoch=False),
]

train_cfg = dict(type="ResumableEpochLoop", max_epochs="${max_epochs}")
