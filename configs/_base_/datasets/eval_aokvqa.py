# A-OKVQA's validation split (arXiv:2206.01718): "aokvqa", one of four choices, and "aokvqa_direct", a free answer that
# is right by a third for each annotator who gave it. The source's script judges both.
needed_aokvqa = {
    "${data_root}/aokvqa": "A-OKVQA (allenai.org/project/a-okvqa/home: aokvqa_v1p0.tar.gz, unpacked to annotations)",
    "${data_root}/coco/val2017": "COCO's validation images of 2017 (cocodataset.org/#download)",
}
answering_aokvqa = "ranking"
_aokvqa_val = dict(
    type="InstructionDataset",
    parser="aokvqa",
    seed="${seed}",
    data_root="${data_root}",
    ann_file="aokvqa/annotations/aokvqa_v1p0_val.json",
    data_prefix=dict(img="coco"),
    expect=dict(split="val"),
)
eval_aokvqa = dict(
    name="aokvqa",
    pipeline=[
        dict(type="OfferOptions"),
        "${example_steps}",
        "${image_steps}",
        "${steps_${answering_aokvqa}}",
    ],
    **_aokvqa_val,
)
eval_aokvqa_direct = dict(
    name="aokvqa_direct", pipeline=["${example_steps}", "${image_steps}", "${question_steps}"], **_aokvqa_val
)
metric_aokvqa = dict(type="BenchmarkScores", rule="choice")
metric_aokvqa_direct = dict(type="BenchmarkScores", rule="direct_answer")
task_aokvqa = task_aokvqa_direct = "vqa"
