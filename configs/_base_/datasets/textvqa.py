# TextVQA, questions about text in photographs (the published code calls it text_ocr): https://textvqa.org/dataset
# (TextVQA_0.5.1_train.json; its images, TextOCR's and OpenImages', in train_images).
textvqa = dict(
    type="InstructionDataset",
    name="textvqa",
    parser=dict(type="vqa", image="{image_id}.jpg"),
    data_root="${data_root}",
    ann_file="textvqa/TextVQA_0.5.1_train.json",
    data_prefix=dict(img="textvqa/train_images"),
    pipeline=["${image_steps}", "${answer_steps}"],
)
