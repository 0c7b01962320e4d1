# COCO Caption in Karpathy's split: https://cs.stanford.edu/people/karpathy/deepimagesent
# The published mix drew from its validation file too; that one is kept for evaluation here.
coco_caption = dict(
    type="InstructionDataset",
    name="coco_caption",
    parser="coco_caption",
    sample=512,
    data_root="${data_root}",
    ann_file="coco/annotations/coco_karpathy_train_converted.json",
    data_prefix=dict(img="coco"),
    pipeline=[
        dict(type="PickAnswer"),
        dict(
            type="AskQuestion",
            questions=[
                "What does this image show?",
                "Sum up the picture in one sentence.",
                "Write a short caption for this photo.",
                "Tell me briefly what is going on here.",
                "What would you say this picture is about?",
                "Put the scene into a few words.",
                "Describe what can be seen, in a single sentence.",
            ],
        ),
        "${image_steps}",
        "${answer_steps}",
    ],
)
