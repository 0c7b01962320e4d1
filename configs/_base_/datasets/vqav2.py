# VQAv2, questions about photographs: training questions and annotations of 2017. Its images are COCO's of 2014.
_vqav2 = dict(type="InstructionDataset", data_root="${data_root}", pipeline=["${image_steps}", "${answer_steps}"])
vqav2 = dict(
    name="vqav2",
    parser=dict(type="vqa", image="train2014/COCO_train2014_{image_id:012d}.jpg"),
    ann_file=dict(
        path="vqav2/v2_mscoco_train2014_annotations.json",
        source="VQAv2 (visualqa.org/download.html: questions and annotations of the balanced real images)",
    ),
    data_prefix=dict(
        img=dict(path="coco", source="COCO's images of 2014 (cocodataset.org/#download: train2014)"),
        questions=dict(
            path="vqav2/v2_OpenEnded_mscoco_train2014_questions.json",
            source="VQAv2 (visualqa.org/download.html: questions and annotations of the balanced real images)",
        ),
    ),
    **_vqav2,
)
# The same records as one list, which the published loader reads; its images are also in coco/val2014.
vqav2_lavis = dict(
    name="vqav2_lavis",
    parser="vqa",
    ann_file=dict(
        path="vqav2/vqa_train.json",
        source="storage.googleapis.com/sfr-vision-language-research/LAVIS/datasets/vqav2/vqa_train.json",
    ),
    data_prefix=dict(img=dict(path="coco", source="COCO's images of 2014 (cocodataset.org/#download: train2014)")),
    **_vqav2,
)
