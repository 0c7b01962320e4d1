# Alpaca's instructions, answered by GPT-4 (arXiv:2304.03277).
alpaca_gpt4 = dict(
    type="InstructionDataset",
    name="alpaca_gpt4",
    parser="alpaca",
    source="language",
    data_root="${data_root}",
    ann_file=dict(
        path="alpaca_gpt4/alpaca_gpt4_data.json",
        source="data/alpaca_gpt4_data.json of github.com/Instruction-Tuning-with-GPT-4/GPT-4-LLM",
    ),
    pipeline=["${answer_steps}"],
)
