# A-OKVQA (arXiv:2206.01718), questions with four choices and rationales. Its images are COCO's of 2017.
aokvqa = dict(
    type="InstructionDataset",
    name="aokvqa",
    parser="aokvqa",
    sample=5000,
    data_root="${data_root}",
    ann_file=dict(
        path="aokvqa/annotations/aokvqa_v1p0_train.json",
        source="A-OKVQA (allenai.org/project/a-okvqa/home: aokvqa_v1p0.tar.gz, unpacked to aokvqa/annotations)",
    ),
    data_prefix=dict(img=dict(path="coco", source="COCO's images of 2017 (cocodataset.org/#download: train2017)")),
    pipeline=[
        dict(type="OfferOptions", prob=0.5),
        dict(
            type="GiveReason",
            questions=[
                "What makes you think so?",
                "Please give the reason as well.",
                "How can you tell?",
                "What is the reason for your answer?",
                "Say why, too.",
                "Which facts lead you to that answer?",
                "Back up your answer with an explanation.",
            ],
        ),
        "${image_steps}",
        "${answer_steps}",
    ],
)
