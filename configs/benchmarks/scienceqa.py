# ScienceQA's test split (arXiv:2209.09513), questions without an image too; scored by subject, context and grade as the
# source's script does.

# The answer is the likeliest of the choices. --answering generation: a free answer, in which a choice is looked for.
answering = "ranking"
styles = dict(openflamingo="styles/openflamingo_vqa.py")

test_dataloader = dict(
    batch_size=8,
    num_workers=4,
    dataset=dict(
        type="InstructionDataset",
        name="scienceqa",
        parser=dict(type="scienceqa", split="test"),
        seed="${seed}",
        data_root="${data_root}",
        ann_file=dict(path="scienceqa/problems.json", source="ScienceQA (github.com/lupantech/ScienceQA)"),
        data_prefix=dict(
            img=dict(
                path="scienceqa/images", source="ScienceQA's images (github.com/lupantech/ScienceQA), in images/test"
            )
        ),
        pipeline=[dict(type="OfferOptions"), "${example_steps}", "${image_steps}", "${rank_steps}"],
    ),
    sampler=dict(type="DefaultSampler", shuffle=False),
    collate_fn=dict(type="collate_conversations", padding_side="left"),
)
test_evaluator = dict(type="BenchmarkScores", rule="choice", by=["subject", "context", "grade"])
test_cfg = dict(type="EvaluationLoop", cut_at=[])
