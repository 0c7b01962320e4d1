# The published recipe of MultiModal-GPT: OpenFlamingo-9B with LoRA, on visual and language-only instructions together.
_base_ = [
    "../_base_/models/openflamingo_9b.py",
    "../_base_/datasets/joint.py",
    "../_base_/datasets/benchmarks.py",
    "../_base_/schedules/lora_1e-5.py",
    "../_base_/default_runtime.py",
]

# A benchmark is asked, and decoded, in its style (see benchmarks.py).
question_template = "${template_${style}}"
model = dict(module=dict(generation="${generation_${style}}"))
