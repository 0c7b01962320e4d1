"""Variables and pipelines of all datasets: where the data is, and the steps from image and text to model inputs.

`language_model`, the folder whose tokenizer is used, comes from the base file of the model.
"""

data_root = "data"
prompt_template = "instruction"  # "chat": the language model's own chat template.
system_prompt = ""  # The system text of samples without one of their own.
question_template = "${prompt_template}"  # Evaluation uses this one.
max_length = 512
tokenization = "segments"  # The published weights need "stripped".
add_bos_token = None  # None: texts begin with the start of sequence where the tokenizer puts it in front of them.
on_error = "raise"  # "skip" trains without broken records and images, and counts them in the log.

# CLIP's preprocessing. Another image encoder's own library says how its images are prepared (docs/data.md):
# prepare_images = dict(_delete_=True, type="PrepareImages", preprocessing="${vision}")
prepare_images = dict(
    type="PrepareImages",
    size=224,
    mean=[0.48145466, 0.4578275, 0.40821073],
    std=[0.26862954, 0.26130258, 0.27577711],
    interpolation="bicubic",
)
_tokenize = dict(
    type="TokenizeSegments",
    tokenizer="${language_model}",
    max_length="${max_length}",
    tokenization="${tokenization}",
    add_bos_token="${add_bos_token}",
)
_answer = dict(
    type="FormatPrompt", template="${prompt_template}", tokenizer="${language_model}", system="${system_prompt}"
)
_ask = dict(_answer, template="${question_template}", open_last=True)

pixel_steps = [dict(type="LoadImages"), "${prepare_images}"]
# With image_steps = "${feature_steps}" and a folder as feature_cache, features are read instead of images
# (docs/data.md, "Cached image features").
feature_steps = [dict(type="LoadFeatures", cache="${feature_cache}", steps="${pixel_steps}")]
feature_cache = None
image_steps = "${pixel_steps}"
# Training: the answers are part of the text.
answer_steps = [_answer, _tokenize, dict(type="PackInputs")]
# Evaluation: in-context examples before the question, [dict(type="AddExamples", ...)] (docs/evaluation.md).
example_steps = []
# Evaluation: the last answer is left to the model.
question_steps = [_ask, _tokenize, dict(type="PackInputs")]
# Evaluation by likelihood: the answer is the likeliest of those offered.
rank_per_token = False  # True ranks by the mean over the tokens of an answer instead of their sum.
_rank = dict(type="AddCandidates", tokenize=_tokenize, per_token="${rank_per_token}")
rank_steps = [_ask, _tokenize, _rank, dict(type="PackInputs")]
# Evaluation by how likely the right answers are.
_likelihood = dict(type="AddCandidates", tokenize=_tokenize, answers="answer")
likelihood_steps = [_ask, _tokenize, _likelihood, dict(type="PackInputs")]
# Chat, with images already in memory. A prompt may be as long as the language model's positions allow.
chat_pipeline = ["${prepare_images}", dict(_answer, open_last=True), dict(_tokenize, max_length=None)]
