# Loss and perplexity of the tiny model on held-out language-only instructions.
_base_ = "./tiny_lora_joint.py"

question_steps = "${likelihood_steps}"
test_dataloader = dict(dataset=dict(visual=[]))
test_evaluator = dict(_delete_=True, type="Perplexity")
