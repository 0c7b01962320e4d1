# TextVQA (arXiv:1904.08920), questions about text in photographs of OpenImages. The published code calls it text_ocr.
textvqa = dict(
    type="InstructionDataset",
    name="textvqa",
    parser=dict(type="vqa", image="{image_id}.jpg"),
    data_root="${data_root}",
    ann_file=dict(path="textvqa/TextVQA_0.5.1_train.json", source="TextVQA (textvqa.org/dataset)"),
    data_prefix=dict(
        img=dict(path="textvqa/train_images", source="TextVQA's images of the training set (textvqa.org/dataset)")
    ),
    pipeline=["${image_steps}", "${answer_steps}"],
)
