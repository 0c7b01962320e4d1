# TextVQA's validation split (arXiv:1904.08920), without OCR tokens in the prompt, scored as the source's evaluator does
# and as OpenFlamingo does.

styles = dict(openflamingo="styles/openflamingo_vqa.py")

test_dataloader = dict(
    batch_size=8,
    num_workers=4,
    dataset=dict(
        type="InstructionDataset",
        name="textvqa",
        parser=dict(type="vqa", image="{image_id}.jpg"),
        seed="${seed}",
        data_root="${data_root}",
        ann_file=dict(path="textvqa/TextVQA_0.5.1_val.json", source="TextVQA (textvqa.org/dataset)"),
        data_prefix=dict(
            img=dict(
                path="textvqa/train_images",
                source="TextVQA's training images, which include those of validation (textvqa.org/dataset)",
            )
        ),
        expect=dict(set_name="val"),
        pipeline=["${example_steps}", "${image_steps}", "${question_steps}"],
    ),
    sampler=dict(type="DefaultSampler", shuffle=False),
    collate_fn=dict(type="collate_conversations", padding_side="left"),
)
test_evaluator = [dict(type="BenchmarkScores", rule="textvqa"), dict(type="BenchmarkScores", rule="openflamingo")]
test_cfg = dict(type="EvaluationLoop", cut_at=[])
