# GQA's balanced test-dev questions (arXiv:1902.09506): the short answer, exactly; scored by type of question too.

styles = dict(openflamingo="styles/openflamingo_vqa.py")

test_dataloader = dict(
    batch_size=8,
    num_workers=4,
    dataset=dict(
        type="InstructionDataset",
        name="gqa",
        parser=dict(type="vqa", image="{imageId}.jpg", tags=["structural", "semantic"]),
        seed="${seed}",
        data_root="${data_root}",
        ann_file=dict(
            path="gqa/questions/testdev_balanced_questions.json",
            source="GQA (cs.stanford.edu/people/dorarad/gqa/download.html: questions1.2.zip, to gqa/questions)",
        ),
        data_prefix=dict(
            img=dict(path="gqa/images", source="GQA's images (cs.stanford.edu/people/dorarad/gqa/download.html)")
        ),
        # The images of training and validation have plain numbers.
        expect=dict(imageId=r"n\d+"),
        pipeline=["${example_steps}", "${image_steps}", "${question_steps}"],
    ),
    sampler=dict(type="DefaultSampler", shuffle=False),
    collate_fn=dict(type="collate_conversations", padding_side="left"),
)
test_evaluator = dict(type="BenchmarkScores", rule="exact", by=["structural", "semantic"])
test_cfg = dict(type="EvaluationLoop", cut_at=[])
