# What every stitched training of a classifier needs, whatever its data.
_base_ = ['./snnetv2_runtime.py']

default_scope = 'mmpretrain'
env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)
log_level = 'INFO'
vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(type='UniversalVisualizer', vis_backends=vis_backends)
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=100),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(
        type='CheckpointHook',
        interval=1,
        max_keep_ckpts=2,
        save_best='pareto/hypervolume',
        rule='greater',
    ),
    sampler_seed=dict(type='DistSamplerSeedHook'),
)
custom_hooks = [
    # 'auto' to train on other classes than those that the anchors' weights know.
    dict(type='StitchInitHook', num_images=100, classifiers='pretrained'),
    # Bins of 1 GFLOP at 224x224; every process draws a stitch of its own, as published.
    dict(
        type='StitchSamplingHook',
        sampler=dict(type='CostBinStitchSampler', bin_width=1.0, per_rank=True),
    ),
]

val_cfg = dict(metric='accuracy/top1', rule='greater')
test_cfg = dict(metric='accuracy/top1', rule='greater')
