# The recipe of the tiny models: the published one with a larger rate, a shorter warm-up and no accumulation.
_base_ = "./lora_1e-5.py"

lr = 2e-3
accumulative_counts = 1
warmup_iters = 50
max_epochs = 4
