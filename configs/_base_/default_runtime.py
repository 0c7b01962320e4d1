# The runtime settings of every experiment: hooks, checkpoints, logging, randomness.
default_scope = "mmgpt"

# An experiment changes a hook by its name (default_hooks = dict(nonfinite=dict(patience=3))), or turns it off by None
# (default_hooks = dict(progress=None)). A hook that a config does not name runs all the same. Further hooks go into
# custom_hooks.
default_hooks = dict(
    runtime_info=dict(type="StepInfoHook"),
    timer=dict(type="IterTimerHook"),
    sampler_seed=dict(type="DistSamplerSeedHook"),
    logger=dict(type="LoggerHook", interval=50),
    param_scheduler=dict(type="ParamSchedulerHook"),
    # The interval counts batches; a checkpoint is written at the end of the step that it falls into.
    checkpoint=dict(type="TrainableCheckpointHook", interval=800, by_epoch=False, max_keep_ckpts=2),
    progress=dict(type="ProgressBarHook"),
    # These log what training leaves out, skip steps with NaN, end a run whose gradients are all zero, and save a
    # checkpoint at SIGINT, SIGTERM and SIGUSR1.
    dropped_samples=dict(type="DroppedSamplesHook"),
    nonfinite=dict(type="NonFiniteHook", patience=10),
    zero_gradients=dict(type="ZeroGradientsHook", patience=10),
    stop_signals=dict(type="StopOnSignalHook"),
    model_summary=dict(type="ModelSummaryHook"),
    throughput=dict(type="ThroughputHook"),
)

env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method="fork", opencv_num_threads=0),
    dist_cfg=dict(backend="nccl", timeout=600),
)
# The wrapper of the model where several processes train. MMEngine finds it by its whole name only. With device_ids=None
# it leaves the batches, which are on their device already, alone.
model_wrapper_cfg = dict(type="mmgpt.UnusedParamsDDP", device_ids=None, broadcast_buffers=False)

# Curves and images go to the files that tools/analysis_tools/analyze_logs.py reads. `tracker = "tensorboard"`, in an
# experiment or as an option, adds a backend (requirements/tensorboard.txt); the others are in docs/evaluation.md.
visualizer = dict(type="Visualizer", vis_backends=[dict(type="LocalVisBackend")])
log_processor = dict(type="LogProcessor", window_size=50, by_epoch=False)
# The seed of the order of the data, of what is drawn from it, and of new weights and dropout.
seed = 0
randomness = dict(seed="${seed}")
