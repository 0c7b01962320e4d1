# Dialogues about COCO's images, in the layout of LLaVA's conversations. The published code calls them coco_dial and
# names no source; any such file will do, for example that of llava_dialogue.py.
coco_dialogue = dict(
    type="InstructionDataset",
    name="coco_dialogue",
    parser="llava",
    data_root="${data_root}",
    ann_file=dict(
        path="coco/annotations/coco_dialogue.json",
        source="any dialogues in the layout of LLaVA's (see configs/_base_/datasets/coco_dialogue.py)",
    ),
    data_prefix=dict(
        img=dict(path="coco/train2017", source="COCO's images of 2017 (cocodataset.org/#download: train2017)")
    ),
    pipeline=["${image_steps}", "${answer_steps}"],
)
