# A conversation model of real parts: SmolLM2-135M-Instruct learns to see by EfficientNet-Lite0, in one run with LoRA.
# ../README.md says how the parts and the data are made, and what comes out.
_base_ = [
    "../../../configs/_base_/models/openflamingo_9b.py",
    "../../../configs/_base_/datasets/pipelines.py",
    "../../../configs/_base_/schedules/tiny.py",
    "../../../configs/_base_/default_runtime.py",
]

# The model: a new resampler, new gated blocks before every eighth layer, and LoRA.
language_model = dict(path="checkpoints/real/language", source="projects/real_parts/README.md")
vision_model = dict(path="checkpoints/real/vision", source="projects/real_parts/README.md")
flamingo_weights = None
# bfloat16 where the machine computes it fast, float32 elsewhere.
language = dict(dtype="auto")

# The features of the stage at a 16th of the images' size: 14 x 14 positions, in which colors are still to be seen.
vision = dict(_delete_=True, type="TimmVision", path="${vision_model}", layer=3)
perceiver = dict(depth=2, num_latents=16)
# A gate of 0.5 lets images in from the first step, and the gain makes their part as large as the hidden states that it
# is added to (docs/training.md).
gated = dict(every_n_layers=8, gate_init=0.5, out_gain=20)
generation = dict(max_new_tokens=64, num_beams=1)
# Below the first gated block nothing is trainable, so that the backward pass ends there.
lora = dict(
    r=8,
    target_modules=["q_proj", "k_proj", "v_proj", "o_proj"],
    layers_to_transform=list(range(7, 30)),
)
model = dict(train=["perceiver", "gated"])

# The data: easy-VQA's questions, conversations about its images and descriptions of them, and text-only instructions
# that the language model itself answered. A question is a sample of its own: as a turn of a conversation it would see
# the answers before it, which say much about its own.
data_root = "data/real"
prompt_template = "chat"
# As short as it can be. The text that the template has without one is longer than most questions here.
system_prompt = "."
max_length = 192  # tokens, of a sample and of a row with several
feature_cache = "work_dirs/real_features"
image_steps = "${feature_steps}"
prepare_images = dict(_delete_=True, type="PrepareImages", preprocessing="${vision}")

_source = "projects/real_parts/README.md"


def _dataset(name, file, images=True, sample=None, weight=1, steps="${answer_steps}"):
    return dict(
        type="InstructionDataset",
        name=name,
        source="visual" if images else "language",
        parser="conversation",
        sample=sample,
        weight=weight,
        seed="${seed}",
        data_root="${data_root}",
        ann_file=dict(path=file, source=_source),
        data_prefix=dict(img="."),
        pipeline=[*(["${image_steps}"] if images else []), steps],
    )


train_dataloader = dict(
    batch_size=16,
    num_workers=0,
    dataset=dict(
        type="JointDataset",
        seed="${seed}",
        on_error="${on_error}",
        visual=[
            _dataset("questions", "train_questions.jsonl", weight=2),
            _dataset("conversations", "conversations.jsonl", sample=400),
            _dataset("descriptions", "descriptions.jsonl"),
        ],
        language=[_dataset("text", "text.jsonl", images=False)],
    ),
    sampler=dict(type="DefaultSampler", shuffle=True),
    # Not sorted by length: questions of one kind are equally long, and a batch would have one kind only.
    batch_sampler=dict(type="JointBatchSampler", language_batch_size=2),
    collate_fn=dict(type="collate_conversations", row_length="${max_length}"),
)

_kinds = ["shape", "color", "yes_no"]
test_dataloader = dict(
    batch_size=64,
    num_workers=0,
    dataset=dict(
        type="JointDataset",
        visual=[_dataset(kind, f"test_{kind}.jsonl", steps="${question_steps}") for kind in _kinds],
        language=[],
    ),
    sampler=dict(type="DefaultSampler", shuffle=False),
    collate_fn=dict(type="collate_conversations", padding_side="left"),
)
test_cfg = dict(type="EvaluationLoop")
test_evaluator = dict(type="AnswerAccuracy")

lr = 1e-3
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(LoRA=dict(lr_mult=0.2))))
max_epochs = 1
warmup_iters = 20
# After the warm-up, the rate is proportional to the square root of the part of the run that is left: higher for longer
# than with a cosine, since yes or no is learned only after some hundred steps.
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-3, by_epoch=False, begin=0, end="${warmup_iters}"),
    dict(type="PolyLR", power=0.5, by_epoch=False),
]
# A step takes about a second.
default_hooks = dict(checkpoint=dict(interval=200))
