# Dolly 15k, instructions and answers written by Databricks' employees.
dolly = dict(
    type="InstructionDataset",
    name="dolly",
    parser="dolly",
    source="language",
    data_root="${data_root}",
    ann_file=dict(
        path="dolly/databricks-dolly-15k.jsonl",
        source="Dolly 15k (huggingface.co/datasets/databricks/databricks-dolly-15k)",
    ),
    pipeline=["${answer_steps}"],
)
