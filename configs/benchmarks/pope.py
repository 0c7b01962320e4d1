# POPE (arXiv:2305.10355): is an object in an image of COCO? The objects that are not there are chosen at random, are
# popular, or often occur with those that are there.

# The answer is free. --answering ranking: the likelier one of yes and no.
answering = "generation"
styles = dict(openflamingo="styles/openflamingo_vqa.py")


def _pope(category):
    return dict(
        type="InstructionDataset",
        name=f"pope_{category}",
        parser=dict(type="pope", category=category),
        data_root="${data_root}",
        ann_file=dict(path=f"pope/coco_pope_{category}.json", source="POPE (github.com/AoiDragon/POPE, output/coco)"),
        data_prefix=dict(
            img=dict(path="coco/val2014", source="COCO's images of 2014 (cocodataset.org/#download: val2014)")
        ),
        expect=dict(image="COCO_val2014_.*"),
        pipeline=["${example_steps}", "${image_steps}", "${question_steps}"],
    )


test_dataloader = dict(
    batch_size=8,
    num_workers=4,
    dataset=dict(
        type="JointDataset",
        seed="${seed}",
        visual=[_pope("random"), _pope("popular"), _pope("adversarial")],
    ),
    sampler=dict(type="DefaultSampler", shuffle=False),
    collate_fn=dict(type="collate_conversations", padding_side="left"),
)
test_evaluator = dict(type="BenchmarkScores", rule="yes_no", by=["category"])
test_cfg = dict(type="EvaluationLoop", cut_at=[])
