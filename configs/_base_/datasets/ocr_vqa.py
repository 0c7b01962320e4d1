# OCR-VQA: https://ocr-vqa.github.io; book covers with several questions each, one of which is asked at a time.
ocr_vqa = dict(
    type="InstructionDataset",
    name="ocr_vqa",
    parser=dict(type="ocr_vqa", split="train"),
    sample=512,
    data_root="${data_root}",
    ann_file="OCR_VQA/downloaded_dataset.json",
    data_prefix=dict(img="OCR_VQA/image"),
    pipeline=[dict(type="PickTurn"), "${image_steps}", "${answer_steps}"],
)
