# VQAv2's test-dev split (arXiv:1612.00837). Only the leaderboard knows the answers: the file that it takes is written.

styles = dict(openflamingo="styles/openflamingo_vqa.py")

test_dataloader = dict(
    batch_size=8,
    num_workers=4,
    dataset=dict(
        type="InstructionDataset",
        name="vqav2_test_dev",
        parser=dict(type="vqa", image="test2015/COCO_test2015_{image_id:012d}.jpg"),
        seed="${seed}",
        data_root="${data_root}",
        ann_file=dict(
            path="vqav2/v2_OpenEnded_mscoco_test-dev2015_questions.json",
            source="VQAv2 (visualqa.org/download.html: questions and annotations of the balanced real images)",
        ),
        data_prefix=dict(
            img=dict(path="coco", source="COCO's test images of 2015 (cocodataset.org/#download: test2015)")
        ),
        expect=dict(data_subtype="test.*2015"),
        pipeline=["${example_steps}", "${image_steps}", "${question_steps}"],
    ),
    sampler=dict(type="DefaultSampler", shuffle=False),
    collate_fn=dict(type="collate_conversations", padding_side="left"),
)
test_evaluator = dict(
    type="VQALeaderboardFile",
    question_file="${data_root}/vqav2/v2_OpenEnded_mscoco_test-dev2015_questions.json",
    out_file="vqav2_test-dev2015_answers.json",
)
test_cfg = dict(type="EvaluationLoop", cut_at=[])
