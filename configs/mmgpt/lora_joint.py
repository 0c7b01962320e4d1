# The published recipe of MultiModal-GPT: OpenFlamingo-9B with LoRA, on visual and language-only instructions together.
_base_ = [
    "../_base_/models/openflamingo_9b.py",
    "../_base_/datasets/joint.py",
    "../_base_/schedules/lora_1e-5.py",
    "../_base_/default_runtime.py",
]

# tools/test.py evaluates on this benchmark, a file of configs/benchmarks, in this style ("instruction": the template of
# training and chat, and their decoding). --benchmark and --style choose others, see docs/evaluation.md.
benchmark = "aokvqa"
style = "instruction"

# With True, 500 of A-OKVQA's validation questions are asked after each epoch, and the checkpoint with the most right
# answers is saved beside the newest ones. The published recipe has no validation, and needs no file for it.
validate = False
validation = dict(
    val_dataloader=dict(
        batch_size=8,
        num_workers=4,
        dataset=dict(
            type="InstructionDataset",
            name="aokvqa",
            parser="aokvqa",
            sample=500,
            seed="${seed}",
            data_root="${data_root}",
            ann_file=dict(
                path="aokvqa/annotations/aokvqa_v1p0_val.json",
                source="A-OKVQA (allenai.org/project/a-okvqa/home: aokvqa_v1p0.tar.gz, unpacked to aokvqa/annotations)",
            ),
            data_prefix=dict(
                img=dict(path="coco", source="COCO's validation images of 2017 (cocodataset.org/#download: val2017)")
            ),
            pipeline=[dict(type="OfferOptions"), "${image_steps}", "${rank_steps}"],
        ),
        sampler=dict(type="DefaultSampler", shuffle=False),
        collate_fn=dict(type="collate_conversations", padding_side="left"),
    ),
    val_evaluator=dict(type="BenchmarkScores", rule="choice"),
    val_cfg=dict(type="ValLoop"),
    save_best="choice/accuracy",
)
