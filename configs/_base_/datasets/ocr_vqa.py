# OCR-VQA: book covers with several questions each, one of which is asked at a time.
# The source's own script downloads the images one by one. downloaded_dataset.json is its dataset.json, or a list of the
# records whose image was downloaded, with the image's name as `filename`.
ocr_vqa = dict(
    type="InstructionDataset",
    name="ocr_vqa",
    parser=dict(type="ocr_vqa", split="train"),
    sample=512,
    data_root="${data_root}",
    ann_file=dict(path="OCR_VQA/downloaded_dataset.json", source="OCR-VQA (ocr-vqa.github.io: dataset.json, renamed)"),
    data_prefix=dict(img=dict(path="OCR_VQA/image", source="OCR-VQA's images (ocr-vqa.github.io)")),
    pipeline=[dict(type="PickTurn"), "${image_steps}", "${answer_steps}"],
)
