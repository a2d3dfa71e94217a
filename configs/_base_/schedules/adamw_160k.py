# AdamW as in mmseg's own ViT and UperNet recipes: 1,500 iterations of warm-up, then linear decay.
# Learning rates fall by 0.95 a block, as UperNet on plain ViTs is published with this optimizer
# (ViT-Adapter, upernet_deit_adapter_base_512_160k_ade20k.py) and with 24 blocks (mmseg's
# beit-large_upernet_8xb1-amp-160k_ade20k-640x640.py). Norms, biases, tokens and position
# embeddings are without weight decay.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=6e-5, betas=(0.9, 0.999), weight_decay=0.01),
    constructor='StitchLayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(decay_rate=0.95),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(type='PolyLR', eta_min=0.0, power=1.0, begin=1500, end=160000, by_epoch=False),
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=160000, val_interval=16000)
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(
        type='CheckpointHook',
        by_epoch=False,
        interval=16000,
        max_keep_ckpts=2,
        save_best='pareto/hypervolume',
        rule='greater',
    ),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='SegVisualizationHook'),
)
