# OK-VQA's validation split (arXiv:1906.00067), version 1.1, scored as VQAv2. OpenFlamingo's own evaluation also
# reduces words to their stems, which is not done here.

styles = dict(openflamingo="styles/openflamingo_vqa.py")

test_dataloader = dict(
    batch_size=8,
    num_workers=4,
    dataset=dict(
        type="InstructionDataset",
        name="okvqa",
        parser=dict(
            type="vqa", image="val2014/COCO_val2014_{image_id:012d}.jpg", tags=["question_type", "answer_type"]
        ),
        seed="${seed}",
        data_root="${data_root}",
        ann_file=dict(path="okvqa/mscoco_val2014_annotations.json", source="OK-VQA (okvqa.allenai.org/download.html)"),
        data_prefix=dict(
            img=dict(path="coco", source="COCO's images of 2014 (cocodataset.org/#download: val2014)"),
            questions=dict(
                path="okvqa/OpenEnded_mscoco_val2014_questions.json", source="OK-VQA (okvqa.allenai.org/download.html)"
            ),
        ),
        expect=dict(data_subtype="val2014"),
        pipeline=["${example_steps}", "${image_steps}", "${question_steps}"],
    ),
    sampler=dict(type="DefaultSampler", shuffle=False),
    collate_fn=dict(type="collate_conversations", padding_side="left"),
)
test_evaluator = [
    dict(type="BenchmarkScores", rule="vqa", by=["question_type"]),
    dict(type="BenchmarkScores", rule="openflamingo"),
]
test_cfg = dict(type="EvaluationLoop", cut_at=[])
