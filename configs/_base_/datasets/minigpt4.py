# MiniGPT-4's images with detailed descriptions (arXiv:2304.10592).
minigpt4 = dict(
    type="InstructionDataset",
    name="minigpt4",
    parser="minigpt4",
    data_root="${data_root}",
    ann_file=dict(
        path="cc_sbu_align/filter_cap.json",
        source="MiniGPT-4's images and descriptions (huggingface.co/datasets/Vision-CAIR/cc_sbu_align, unpacked)",
    ),
    data_prefix=dict(
        img=dict(
            path="cc_sbu_align/image",
            source="MiniGPT-4's images and descriptions (huggingface.co/datasets/Vision-CAIR/cc_sbu_align, unpacked)",
        )
    ),
    pipeline=[
        dict(
            type="AskQuestion",
            questions=[
                "Describe this picture in detail.",
                "Go through the image and tell me all that you see.",
                "Please write a thorough description of this photo.",
                "What can be seen here? Take your time.",
                "Explain the scene as you would to someone who cannot see it.",
                "Give a full account of the picture.",
                "I would like to know everything about this image.",
            ],
        ),
        "${image_steps}",
        "${answer_steps}",
    ],
)
