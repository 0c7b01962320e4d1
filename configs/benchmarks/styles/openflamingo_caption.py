# How OpenFlamingo asks for a caption (arXiv:2308.01390; open_flamingo/eval of version 2.0.1): <image>Output:
question_template = "openflamingo_caption"
# The prompt has no question, which our own template asks.
test_dataloader = dict(dataset=dict(pipeline=["${example_steps}", "${image_steps}", "${question_steps}"]))
generation = dict(
    _delete_=True,
    max_new_tokens=20,
    num_beams=3,
    length_penalty=-2.0,
    beam_scores="text",
    end_token="<|endofchunk|>",
)
# The caption ends where the model starts another one.
test_cfg = dict(cut_at=["Output"])
