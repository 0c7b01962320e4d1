# OCR-VQA's test split (ICDAR 2019): each question about a book cover by itself; the answer, exactly.

styles = dict(openflamingo="styles/openflamingo_vqa.py")

test_dataloader = dict(
    batch_size=8,
    num_workers=4,
    dataset=dict(
        type="InstructionDataset",
        name="ocr_vqa",
        parser=dict(type="ocr_vqa", split="test"),
        seed="${seed}",
        data_root="${data_root}",
        ann_file=dict(
            path="OCR_VQA/downloaded_dataset.json", source="OCR-VQA (ocr-vqa.github.io: dataset.json, renamed)"
        ),
        data_prefix=dict(img=dict(path="OCR_VQA/image", source="OCR-VQA's images (ocr-vqa.github.io)")),
        single_turns=True,
        pipeline=["${example_steps}", "${image_steps}", "${question_steps}"],
    ),
    sampler=dict(type="DefaultSampler", shuffle=False),
    collate_fn=dict(type="collate_conversations", padding_side="left"),
)
test_evaluator = dict(type="BenchmarkScores", rule="exact")
test_cfg = dict(type="EvaluationLoop", cut_at=[])
