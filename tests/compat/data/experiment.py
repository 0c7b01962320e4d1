language_model = "base/llama"
vision_model = "base/clip"
lr = 0.05
model = dict(
    type="LoRAModel",
    module=dict(
        type="Flamingo",
        vision=dict(type="OpenCLIPVision", path="${vision_model}"),
        language=dict(path="${language_model}"),
        perceiver=dict(depth=1, num_latents=2, dim_head=4, heads=2),
        gated=dict(every_n_layers=2, dim_head=4, heads=2, gate_init=0.5),
        weights="base/flamingo.safetensors",
        reading="latest",
        generation=dict(max_new_tokens=6),
    ),
    lora=dict(r=2, lora_alpha=4, target_modules=["q_proj", "to_q"], exclude_modules=r"(vision|perceiver)\..*"),
)
chat_pipeline = [
    dict(type="PrepareImages", size=16, mean=[0.1, 0.2, 0.3], std=[0.4] * 3),
    dict(type="FormatPrompt", template="short", open_last=True),
    dict(type="TokenizeSegments", tokenizer="${language_model}", max_length=64),
]
train_dataloader = dict(
    batch_size=2,
    num_workers=0,
    dataset=dict(
        type="InstructionDataset",
        parser="alpaca",
        source="language",
        ann_file="train.json",
        pipeline=[
            dict(type="FormatPrompt", template="short"),
            dict(type="TokenizeSegments", tokenizer="${language_model}", max_length=64),
            dict(type="PackInputs"),
        ],
    ),
    sampler=dict(type="DefaultSampler", shuffle=True),
    collate_fn=dict(type="collate_conversations"),
)
train_cfg = dict(type="ResumableEpochLoop", max_epochs=1)
optim_wrapper = dict(
    type="OptimWrapper",
    constructor="TrainedOptimWrapperConstructor",
    paramwise_cfg=dict(decayed="gated"),
    optimizer=dict(type="AdamW", lr="${lr}", weight_decay=0.1),
)
param_scheduler = [dict(type="ConstantLR", factor=0.5, by_epoch=False, begin=0, end=2)]
default_scope = "mmgpt"
default_hooks = dict(
    runtime_info=dict(type="StepInfoHook"),
    checkpoint=dict(type="TrainedCheckpointHook", interval=2, by_epoch=False, max_keep_ckpts=2),
)
custom_hooks = [dict(type="LostAnswersHook"), dict(type="NonFiniteHook", patience=10), dict(type="PartsTableHook")]
model_wrapper_cfg = dict(type="mmgpt.UnevenDataParallel", device_ids=None, broadcast_buffers=False)
randomness = dict(seed=0)
