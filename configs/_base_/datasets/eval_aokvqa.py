# A-OKVQA's validation questions, answered freely; an answer is right when it equals one of the annotators' answers.
# Of the same source as aokvqa.py; the images are in coco/val2017.
test_dataloader = dict(
    batch_size=8,
    num_workers=4,
    dataset=dict(
        type="InstructionDataset",
        name="aokvqa",
        parser="aokvqa",
        data_root="${data_root}",
        ann_file="aokvqa/annotations/aokvqa_v1p0_val.json",
        data_prefix=dict(img="coco"),
        pipeline=["${image_steps}", "${question_steps}"],
    ),
    sampler=dict(type="DefaultSampler", shuffle=False),
    collate_fn=dict(type="collate_conversations", padding_side="left"),
)
test_cfg = dict(type="EvaluationLoop")
test_evaluator = dict(type="AnswerAccuracy")
