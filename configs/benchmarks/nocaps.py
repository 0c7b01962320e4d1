# NoCaps' validation split (arXiv:1812.08658): 4500 images of Open Images, ten captions each, scored by domain too.

styles = dict(openflamingo="styles/openflamingo_caption.py")

test_dataloader = dict(
    batch_size=8,
    num_workers=4,
    dataset=dict(
        type="InstructionDataset",
        name="nocaps",
        parser="nocaps",
        seed="${seed}",
        data_root="${data_root}",
        ann_file=dict(path="nocaps/nocaps_val_4500_captions.json", source="NoCaps (nocaps.org/download)"),
        data_prefix=dict(
            img=dict(path="nocaps/images", source="the images of NoCaps' validation split (nocaps.org/download)")
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
test_evaluator = dict(type="BenchmarkScores", rule="caption", by=["domain"])
test_cfg = dict(type="EvaluationLoop", cut_at=[])
