# CLEVR, questions about rendered scenes (arXiv:1612.06890).
clevr = dict(
    type="InstructionDataset",
    name="clevr",
    parser=dict(type="vqa", image="{split}/{image_filename}"),
    data_root="${data_root}",
    ann_file=dict(
        path="clevr/CLEVR_v1.0/questions/CLEVR_train_questions.json",
        source="CLEVR (cs.stanford.edu/people/jcjohns/clevr: CLEVR_v1.0.zip, unpacked to clevr)",
    ),
    data_prefix=dict(
        img=dict(
            path="clevr/CLEVR_v1.0/images",
            source="CLEVR (cs.stanford.edu/people/jcjohns/clevr: CLEVR_v1.0.zip, unpacked to clevr)",
        )
    ),
    pipeline=["${image_steps}", "${answer_steps}"],
)
