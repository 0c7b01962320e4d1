# CLEVR: https://cs.stanford.edu/people/jcjohns/clevr (CLEVR_v1.0.zip, unpacked to clevr).
clevr = dict(
    type="InstructionDataset",
    name="clevr",
    parser=dict(type="vqa", image="{split}/{image_filename}"),
    data_root="${data_root}",
    ann_file="clevr/CLEVR_v1.0/questions/CLEVR_train_questions.json",
    data_prefix=dict(img="clevr/CLEVR_v1.0/images"),
    pipeline=["${image_steps}", "${answer_steps}"],
)
