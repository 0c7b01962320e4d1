# Pretrains resampler, gated blocks and a small LLaMA from scratch on plain statements about images, with the image
# encoder of tiny_pretrain_vision.py frozen. See README, "The tiny base".
_base_ = [
    "../_base_/models/tiny_flamingo.py",
    "../_base_/datasets/tiny_images.py",
    "../_base_/schedules/tiny.py",
    "../_base_/default_runtime.py",
]

data_root = "data/tiny_pretrain"
prompt_template = "plain"
max_length = 96
lr = 2e-3
max_epochs = 7
warmup_iters = 200

flamingo_weights = None
language = dict(
    pretrained=False,
    config=dict(
        model_type="llama",
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=512,
        tie_word_embeddings=True,
    ),
)
gated = dict(gate_init=0.5)

model = dict(
    _delete_=True,
    type="Flamingo",
    vision="${vision}",
    language="${language}",
    perceiver="${perceiver}",
    gated="${gated}",
    weights="${flamingo_weights}",
    frozen=["vision"],
)

statement_steps = [dict(type="JoinAnswers", count=4), "${image_steps}", "${answer_steps}"]
statements = dict(
    type="InstructionDataset",
    parser="coco_caption",
    data_root="${data_root}",
    ann_file="pretrain/captions.json",
    data_prefix=dict(img="images"),
    pipeline="${statement_steps}",
)
train_dataloader = dict(
    batch_size=16,
    num_workers=0,
    dataset=dict(
        type="JointDataset",
        seed="${seed}",
        on_error="${on_error}",
        visual=["${statements}"],
        language=[
            dict(
                type="InstructionDataset",
                parser="alpaca",
                source="language",
                data_root="${data_root}",
                ann_file="pretrain/text.json",
                pipeline=["${answer_steps}"],
            )
        ],
    ),
    sampler=dict(type="DefaultSampler", shuffle=True),
    batch_sampler=dict(type="JointBatchSampler", language_batch_size=4),
    collate_fn=dict(type="collate_conversations"),
)
