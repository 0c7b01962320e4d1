# GQA (arXiv:1902.09506), questions made from scene graphs.
# Training has the full answer, a sentence; evaluation compares with the short one in `answer`.
gqa = dict(
    type="InstructionDataset",
    name="gqa",
    parser=dict(type="vqa", image="{imageId}.jpg", answer="fullAnswer"),
    data_root="${data_root}",
    ann_file=dict(
        path="gqa/questions/train_balanced_questions.json",
        source="GQA (cs.stanford.edu/people/dorarad/gqa/download.html: questions, unpacked to gqa/questions)",
    ),
    data_prefix=dict(
        img=dict(path="gqa/images", source="GQA's images (cs.stanford.edu/people/dorarad/gqa/download.html)")
    ),
    pipeline=["${image_steps}", "${answer_steps}"],
)
