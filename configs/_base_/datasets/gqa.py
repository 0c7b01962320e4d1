# GQA: https://cs.stanford.edu/people/dorarad/gqa/download.html (questions, unpacked to gqa/questions; gqa/images).
# Training learns the full answer, a sentence; `answer` is the short one, which evaluation compares.
gqa = dict(
    type="InstructionDataset",
    name="gqa",
    parser=dict(type="vqa", image="{imageId}.jpg", answer="fullAnswer"),
    data_root="${data_root}",
    ann_file="gqa/questions/train_balanced_questions.json",
    data_prefix=dict(img="gqa/images"),
    pipeline=["${image_steps}", "${answer_steps}"],
)
