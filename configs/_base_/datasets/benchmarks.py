# The benchmarks. One is chosen by the name behind `eval_` in its file, and asked in one of two styles:
#   python tools/test.py configs/mmgpt/lora_joint.py CHECKPOINT --cfg-options benchmark=okvqa style=openflamingo
# or in a config that inherits any experiment: benchmark = "okvqa". See docs/evaluation.md.
_base_ = [
    "./eval_aokvqa.py",
    "./eval_coco_caption.py",
    "./eval_flickr30k.py",
    "./eval_gqa.py",
    "./eval_language.py",
    "./eval_nocaps.py",
    "./eval_ocr_vqa.py",
    "./eval_okvqa.py",
    "./eval_pope.py",
    "./eval_scienceqa.py",
    "./eval_snli_ve.py",
    "./eval_textvqa.py",
    "./eval_vizwiz.py",
    "./eval_vqav2.py",
]

benchmark = "aokvqa"
# "instruction": asked and answered as in chat. "openflamingo": its prompts, beams, lengths and cut answers
# (arXiv:2308.01390; open_flamingo/eval of version 2.0.1).
style = "instruction"
# Steps that put in-context examples before the question: [dict(type="AddExamples", ...)].
example_steps = []

test_dataloader = dict(
    batch_size=8,
    num_workers=4,
    dataset="${eval_${benchmark}}",
    sampler=dict(type="DefaultSampler", shuffle=False),
    collate_fn=dict(type="collate_conversations", padding_side="left"),
)
test_evaluator = "${metric_${benchmark}}"
test_cfg = dict(type="EvaluationLoop", cut_at="${cut_at_${style}}")

# What a style is, for a benchmark of captions or of questions.
task = "${task_${benchmark}}"
template_instruction = "${prompt_template}"
template_openflamingo = "openflamingo_${task}"
generation_instruction = "${generation}"
generation_openflamingo = dict(
    max_new_tokens="${length_${task}}",
    num_beams=3,
    length_penalty="${length_penalty_${task}}",
    beam_scores="text",
    end_token="<|endofchunk|>",
)
length_caption = 20
length_vqa = 5
length_penalty_caption = -2.0
length_penalty_vqa = 0.0
cut_at_instruction = []
cut_at_openflamingo = "${cut_at_${task}}"
cut_at_caption = ["Output"]
cut_at_vqa = ["Question", "Answer", "Short", ", "]
caption_question_instruction = [dict(type="AskQuestion", questions=["Write a short caption for this photo."])]
caption_question_openflamingo = []

# Questions with choices, by their `answering_...`: the likeliest choice is taken, or a free answer is read.
steps_ranking = "${rank_steps}"
steps_generation = "${question_steps}"
