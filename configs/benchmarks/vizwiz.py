# VizWiz-VQA's validation split (arXiv:1802.08218), scored as the source's script does and as OpenFlamingo does.

styles = dict(openflamingo="styles/openflamingo_vqa.py")

test_dataloader = dict(
    batch_size=8,
    num_workers=4,
    dataset=dict(
        type="InstructionDataset",
        name="vizwiz",
        parser=dict(type="vqa", tags=["answer_type"]),
        seed="${seed}",
        data_root="${data_root}",
        ann_file=dict(path="vizwiz/annotations/val.json", source="VizWiz-VQA (vizwiz.org/tasks-and-datasets/vqa)"),
        data_prefix=dict(
            img=dict(path="vizwiz/val", source="VizWiz-VQA's validation images (vizwiz.org/tasks-and-datasets/vqa)")
        ),
        expect=dict(image="VizWiz_val_.*"),
        pipeline=["${example_steps}", "${image_steps}", "${question_steps}"],
    ),
    sampler=dict(type="DefaultSampler", shuffle=False),
    collate_fn=dict(type="collate_conversations", padding_side="left"),
)
test_evaluator = [
    dict(type="BenchmarkScores", rule="vizwiz", by=["answer_type"]),
    dict(type="BenchmarkScores", rule="openflamingo"),
]
test_cfg = dict(type="EvaluationLoop", cut_at=[])
