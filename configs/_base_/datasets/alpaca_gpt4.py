# Alpaca instructions answered by GPT-4: data/alpaca_gpt4_data.json of
# https://github.com/Instruction-Tuning-with-GPT-4/GPT-4-LLM
alpaca_gpt4 = dict(
    type="InstructionDataset",
    name="alpaca_gpt4",
    parser="alpaca",
    source="language",
    data_root="${data_root}",
    ann_file="alpaca_gpt4/alpaca_gpt4_data.json",
    pipeline=["${answer_steps}"],
)
