# SNLI-VE's test split (arXiv:1901.06706): whether an image of Flickr30k entails a statement, leaves it open or
# contradicts it. The records do not say which split they are of, so that the file is not checked for it.

# The answer is the likeliest of the choices. --answering generation: a free answer, in which a choice is looked for.
answering = "ranking"
styles = dict(openflamingo="styles/openflamingo_vqa.py")

test_dataloader = dict(
    batch_size=8,
    num_workers=4,
    dataset=dict(
        type="InstructionDataset",
        name="snli_ve",
        parser="snli_ve",
        seed="${seed}",
        data_root="${data_root}",
        ann_file=dict(path="snli_ve/snli_ve_test.jsonl", source="SNLI-VE (github.com/necla-ml/SNLI-VE)"),
        data_prefix=dict(
            img=dict(
                path="flickr30k/flickr30k-images",
                source="Flickr30k's images (shannon.cs.illinois.edu/DenotationGraph)",
            )
        ),
        pipeline=[
            dict(type="AddQuestion", questions=["How does this statement relate to the picture?"]),
            dict(type="OfferOptions"),
            "${example_steps}",
            "${image_steps}",
            "${rank_steps}",
        ],
    ),
    sampler=dict(type="DefaultSampler", shuffle=False),
    collate_fn=dict(type="collate_conversations", padding_side="left"),
)
test_evaluator = dict(type="BenchmarkScores", rule="choice")
test_cfg = dict(type="EvaluationLoop", cut_at=[])
