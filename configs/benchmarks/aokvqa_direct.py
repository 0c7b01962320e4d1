# A-OKVQA's validation split (arXiv:2206.01718), answered freely. As in the source's script, an answer is right by a
# third for each annotator who gave it, and the difficult questions are left out.

styles = dict(openflamingo="styles/openflamingo_vqa.py")

test_dataloader = dict(
    batch_size=8,
    num_workers=4,
    dataset=dict(
        type="InstructionDataset",
        name="aokvqa_direct",
        parser="aokvqa",
        seed="${seed}",
        data_root="${data_root}",
        ann_file=dict(
            path="aokvqa/annotations/aokvqa_v1p0_val.json",
            source="A-OKVQA (allenai.org/project/a-okvqa/home: aokvqa_v1p0.tar.gz, unpacked to aokvqa/annotations)",
        ),
        data_prefix=dict(
            img=dict(path="coco", source="COCO's validation images of 2017 (cocodataset.org/#download: val2017)")
        ),
        expect=dict(split="val"),
        pipeline=["${example_steps}", "${image_steps}", "${question_steps}"],
    ),
    sampler=dict(type="DefaultSampler", shuffle=False),
    collate_fn=dict(type="collate_conversations", padding_side="left"),
)
test_evaluator = dict(type="BenchmarkScores", rule="direct_answer")
test_cfg = dict(type="EvaluationLoop", cut_at=[])
