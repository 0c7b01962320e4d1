# Dialogues about COCO's images, in the layout of LLaVA's conversations. The published code knows it as coco_dial and
# names no source; any such file will do, for example that of llava_dialogue.py.
coco_dialogue = dict(
    type="InstructionDataset",
    name="coco_dialogue",
    parser="llava",
    data_root="${data_root}",
    ann_file="coco/annotations/coco_dialogue.json",
    data_prefix=dict(img="coco/train2017"),
    pipeline=["${image_steps}", "${answer_steps}"],
)
