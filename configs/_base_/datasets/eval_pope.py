# POPE (arXiv:2305.10355): is an object in an image of COCO? Those asked for that are not there are drawn at random, or
# are popular, or often occur with those that are there.
needed_pope = {
    "${data_root}/pope": "POPE (github.com/AoiDragon/POPE, output/coco: coco_pope_{random,popular,adversarial}.json)"
}
answering_pope = "generation"


def _pope(category):
    return dict(
        type="InstructionDataset",
        name=f"pope_{category}",
        parser=dict(type="pope", category=category),
        data_root="${data_root}",
        ann_file=f"pope/coco_pope_{category}.json",
        data_prefix=dict(img="coco/val2014"),
        expect=dict(image="COCO_val2014_.*"),
        pipeline=["${example_steps}", "${image_steps}", "${steps_${answering_pope}}"],
    )


eval_pope = dict(
    type="JointDataset",
    seed="${seed}",
    visual=[_pope(category) for category in ("random", "popular", "adversarial")],
)
metric_pope = dict(type="BenchmarkScores", rule="yes_no", by=["category"])
task_pope = "vqa"
