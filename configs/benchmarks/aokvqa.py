# A-OKVQA's validation split (arXiv:2206.01718): one of four choices. The rule is that of the source's script.

# The answer is the likeliest of the choices. --answering generation: a free answer, in which a choice is looked for.
answering = "ranking"
styles = dict(openflamingo="styles/openflamingo_vqa.py")

test_dataloader = dict(
    batch_size=8,
    num_workers=4,
    dataset=dict(
        type="InstructionDataset",
        name="aokvqa",
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
        pipeline=[dict(type="OfferOptions"), "${example_steps}", "${image_steps}", "${rank_steps}"],
    ),
    sampler=dict(type="DefaultSampler", shuffle=False),
    collate_fn=dict(type="collate_conversations", padding_side="left"),
)
test_evaluator = dict(type="BenchmarkScores", rule="choice")
test_cfg = dict(type="EvaluationLoop", cut_at=[])
