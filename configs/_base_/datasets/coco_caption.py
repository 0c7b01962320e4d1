# COCO Caption in Karpathy's split (cs.stanford.edu/people/karpathy/deepimagesent, coco.zip: dataset_coco.json).
# The annotation file is the published project's conversion: a list with a record for each image of the splits train and
# restval, {"image": "val2014/COCO_val2014_....jpg", "caption": [its captions], "image_id": "coco_..."}. In
# dataset_coco.json that is filepath/filename, the raw of its sentences, and cocoid.
# The published mix drew from its validation file too, which is for evaluation only here.
coco_caption = dict(
    type="InstructionDataset",
    name="coco_caption",
    parser="coco_caption",
    sample=512,
    data_root="${data_root}",
    ann_file=dict(
        path="coco/annotations/coco_karpathy_train_converted.json",
        source="made of COCO Caption in Karpathy's split (see configs/_base_/datasets/coco_caption.py)",
    ),
    data_prefix=dict(
        img=dict(path="coco", source="COCO's images of 2014 (cocodataset.org/#download: train2014, val2014)")
    ),
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
