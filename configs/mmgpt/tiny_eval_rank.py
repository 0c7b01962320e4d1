# tiny_eval by likelihood: its eight families of questions with choices, of which the likeliest is taken.
_base_ = "./tiny_eval.py"

question_steps = "${rank_steps}"
_visual = _base_.test_dataloader.dataset.visual[:8]
test_dataloader = dict(dataset=dict(visual=_visual))
test_evaluator = dict(groups=dict(visual=[dataset["name"] for dataset in _visual]))
