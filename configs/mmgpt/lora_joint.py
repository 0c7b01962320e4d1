# The published recipe of MultiModal-GPT: OpenFlamingo-9B with LoRA, on visual and language-only instructions together.
_base_ = [
    "../_base_/models/openflamingo_9b.py",
    "../_base_/datasets/joint.py",
    "../_base_/schedules/lora_1e-5.py",
    "../_base_/default_runtime.py",
]

# tools/test.py evaluates on this benchmark, a file of configs/benchmarks, in this style ("instruction": the template of
# training and chat, and their decoding). --benchmark and --style choose others, see docs/evaluation.md.
benchmark = "aokvqa"
style = "instruction"
