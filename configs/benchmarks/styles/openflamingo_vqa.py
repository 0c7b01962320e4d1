# How OpenFlamingo asks for a short answer (arXiv:2308.01390; open_flamingo/eval of version 2.0.1):
# <image>Question:... Short answer:
question_template = "openflamingo_vqa"
generation = dict(
    _delete_=True,
    max_new_tokens=5,
    num_beams=3,
    length_penalty=0.0,
    beam_scores="text",
    end_token="<|endofchunk|>",
)
# The answer ends at a comma, or where the model starts another question.
test_cfg = dict(cut_at=["Question", "Answer", "Short", ", "])
