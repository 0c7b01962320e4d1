# Flickr30k, Karpathy's test split: 1000 images, five captions each.

styles = dict(openflamingo="styles/openflamingo_caption.py")

test_dataloader = dict(
    batch_size=8,
    num_workers=4,
    dataset=dict(
        type="InstructionDataset",
        name="flickr30k",
        parser=dict(type="karpathy", split="test"),
        seed="${seed}",
        data_root="${data_root}",
        ann_file=dict(
            path="flickr30k/dataset_flickr30k.json",
            source="caption_datasets.zip, Karpathy's splits (cs.stanford.edu/people/karpathy/deepimagesent)",
        ),
        data_prefix=dict(
            img=dict(
                path="flickr30k/flickr30k-images",
                source="Flickr30k's images (shannon.cs.illinois.edu/DenotationGraph)",
            )
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
