# LLaVA-Instruct-150K, conversations of several turns.
# https://huggingface.co/datasets/liuhaotian/LLaVA-Instruct-150K; its images are COCO's of 2017 (coco/train2017).
llava_dialogue = dict(
    type="InstructionDataset",
    name="llava_dialogue",
    parser="llava",
    data_root="${data_root}",
    ann_file="llava/conversation_58k.json",
    data_prefix=dict(img="coco/train2017"),
    pipeline=["${image_steps}", "${answer_steps}"],
)
