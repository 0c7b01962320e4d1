# COCO Caption, Karpathy's test split: 5000 images, five captions each.

styles = dict(openflamingo="styles/openflamingo_caption.py")

test_dataloader = dict(
    batch_size=8,
    num_workers=4,
    dataset=dict(
        type="InstructionDataset",
        name="coco_caption",
        parser=dict(type="karpathy", split="test"),
        seed="${seed}",
        data_root="${data_root}",
        ann_file=dict(
            path="coco/annotations/dataset_coco.json",
            source="caption_datasets.zip, Karpathy's splits (cs.stanford.edu/people/karpathy/deepimagesent)",
        ),
        data_prefix=dict(
            img=dict(path="coco", source="COCO's images of 2014 (cocodataset.org/#download: train2014, val2014)")
        ),
        pipeline=[
            dict(type="AskQuestion", questions=["Write a short caption for this photo."]),
            "${example_steps}",
            "${image_steps}",
            "${question_steps}",
        ],
    ),
    sampler=dict(type="DefaultSampler", shuffle=False),
    collate_fn=dict(type="collate_conversations", padding_side="left"),
)
test_evaluator = dict(type="BenchmarkScores", rule="caption")
test_cfg = dict(type="EvaluationLoop", cut_at=[])
