# Dolly 15k: https://huggingface.co/datasets/databricks/databricks-dolly-15k
dolly = dict(
    type="InstructionDataset",
    name="dolly",
    parser="dolly",
    source="language",
    data_root="${data_root}",
    ann_file="dolly/databricks-dolly-15k.jsonl",
    pipeline=["${answer_steps}"],
)
