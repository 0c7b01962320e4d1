# The tiny model's held-out questions, each after `shots` answered ones of the training data (--cfg-options shots=4).
# --seeds 0 1 2 draws these examples three times, --controls other asks the same questions about other images.
_base_ = "./tiny_lora_joint.py"

shots = 0
similar = None  # With a file of tools/dataset_converters/image_features.py, the examples have the most similar images.
max_length = 512


def _shown(dataset):
    turns, examples = dataset["pipeline"][:-2], dataset["ann_file"].replace("heldout", "train")
    add = dict(
        type="AddExamples",
        shots="${shots}",
        similar="${similar}",
        dataset=dict(dataset, ann_file=examples, pipeline=turns),
    )
    return dict(dataset, pipeline=[*turns, add, *dataset["pipeline"][-2:]])


test_dataloader = dict(
    batch_size=32,
    dataset=dict(
        seed="${seed}",
        visual=[_shown(dataset) for dataset in _base_.test_dataloader.dataset.visual],
        language=[],
    ),
)
test_evaluator = dict(
    groups=dict(_delete_=True, visual=[dataset["name"] for dataset in _base_.test_dataloader.dataset.visual])
)
