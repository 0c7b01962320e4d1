# Loss and perplexity of the answers of held-out text-only instructions: they rise where tuning on images costs
# language. The file holds JSON lines (docs/data.md); convert.py makes it, for example of what is held out of Dolly:
#   python tools/dataset_converters/convert.py parser dolly FILE --out data/language/train.jsonl --val 0.05

styles = dict(openflamingo="styles/openflamingo_vqa.py")

test_dataloader = dict(
    batch_size=8,
    num_workers=4,
    dataset=dict(
        type="InstructionDataset",
        name="language",
        source="language",
        parser="conversation",
        seed="${seed}",
        data_root="${data_root}",
        ann_file=dict(
            path="language/val.jsonl", source="text-only instructions that are not trained on (docs/data.md)"
        ),
        data_prefix=dict(),
        pipeline=["${example_steps}", "${likelihood_steps}"],
    ),
    sampler=dict(type="DefaultSampler", shuffle=False),
    collate_fn=dict(type="collate_conversations", padding_side="left"),
)
test_evaluator = dict(type="Perplexity")
test_cfg = dict(type="EvaluationLoop", cut_at=[])
