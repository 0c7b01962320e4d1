# OCR-VQA's test split (ICDAR 2019): each question about a book cover by itself; the answer, exactly.
needed_ocr_vqa = {
    "${data_root}/OCR_VQA": "OCR-VQA (ocr-vqa.github.io: dataset.json as downloaded_dataset.json, images in image)"
}
eval_ocr_vqa = dict(
    type="InstructionDataset",
    name="ocr_vqa",
    parser=dict(type="ocr_vqa", split="test"),
    single_turns=True,
    seed="${seed}",
    data_root="${data_root}",
    ann_file="OCR_VQA/downloaded_dataset.json",
    data_prefix=dict(img="OCR_VQA/image"),
    pipeline=["${example_steps}", "${image_steps}", "${question_steps}"],
)
metric_ocr_vqa = dict(type="BenchmarkScores", rule="exact")
task_ocr_vqa = "vqa"
