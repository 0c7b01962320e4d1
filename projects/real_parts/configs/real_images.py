# easy-VQA's questions with descriptions of its images, and text-only instructions that the language model itself
# answered, as projects/real_parts makes them. Five questions about an image are the turns of a conversation.
_base_ = "../../../configs/_base_/datasets/pipelines.py"

data_root = "data/real"
prompt_template = "chat"
max_length = 512
feature_cache = "work_dirs/real_features"
image_steps = "${feature_steps}"
prepare_images = dict(_delete_=True, type="PrepareImages", preprocessing="${vision}")

_source = "projects/real_parts/README.md"


def _dataset(name, file, images=True, sample=None, steps="${answer_steps}"):
    return dict(
        type="InstructionDataset",
        name=name,
        source="visual" if images else "language",
        parser="conversation",
        sample=sample,
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
            _dataset("questions", "train.jsonl", sample=3000),
            _dataset("descriptions", "descriptions.jsonl", sample=900),
        ],
        language=[_dataset("text", "text.jsonl", images=False)],
    ),
    sampler=dict(type="DefaultSampler", shuffle=True),
    batch_sampler=dict(type="JointBatchSampler", language_batch_size=8, sorted_batches=20),
    collate_fn=dict(type="collate_conversations"),
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
