# LLaVA-Instruct-150K, conversations of several turns. Its images are COCO's of 2017.
llava_dialogue = dict(
    type="InstructionDataset",
    name="llava_dialogue",
    parser="llava",
    data_root="${data_root}",
    ann_file=dict(
        path="llava/conversation_58k.json",
        source="LLaVA-Instruct-150K (huggingface.co/datasets/liuhaotian/LLaVA-Instruct-150K)",
    ),
    data_prefix=dict(
        img=dict(path="coco/train2017", source="COCO's images of 2017 (cocodataset.org/#download: train2017)")
    ),
    pipeline=["${image_steps}", "${answer_steps}"],
)
