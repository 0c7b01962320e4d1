# tiny_lora_joint with several samples in one row: the same batches, losses and gradients, less padding.
_base_ = "./tiny_lora_joint.py"

row_length = 128
train_dataloader = dict(batch_sampler=dict(sorted_batches=1), collate_fn=dict(row_length="${row_length}"))
