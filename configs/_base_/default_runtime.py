# What every experiment shares: logging, checkpoints, randomness.
default_scope = "mmgpt"

default_hooks = dict(
    runtime_info=dict(type="StepInfoHook"),
    timer=dict(type="IterTimerHook"),
    sampler_seed=dict(type="DistSamplerSeedHook"),
    logger=dict(type="LoggerHook", interval=50),
    param_scheduler=dict(type="ParamSchedulerHook"),
    # The interval counts batches; a checkpoint is written at the end of the step that it falls into.
    checkpoint=dict(type="TrainedCheckpointHook", interval=800, by_epoch=False, max_keep_ckpts=2),
)
custom_hooks = [dict(type="ProgressBarHook"), dict(type="LostAnswersHook")]

env_cfg = dict(
    cudnn_benchmark=False, mp_cfg=dict(mp_start_method="fork", opencv_num_threads=0), dist_cfg=dict(backend="nccl")
)
# Of several processes. MMEngine finds it by its whole name only. Batches are on their device already.
model_wrapper_cfg = dict(type="mmgpt.UnevenDataParallel", device_ids=None, broadcast_buffers=False)

visualizer = dict(type="Visualizer", vis_backends=[dict(type="LocalVisBackend")])
log_processor = dict(type="LogProcessor", window_size=50, by_epoch=False)
log_level = "INFO"
# Of the order of the data, of what is drawn from it, and of new weights and dropout.
seed = 0
randomness = dict(seed="${seed}")
load_from = None
resume = False
