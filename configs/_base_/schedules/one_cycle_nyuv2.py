# The published schedule for NYUv2. 24,231 pictures over 8 processes are 3,029 each, at 2 a step
# 1,515 iterations an epoch: 24 epochs are 36,360.
max_iters = 36360
# A tenth of the learning rate for the backbone; no decay of its norms, tokens and position
# embeddings. Of the keys that match a name MMEngine takes the longest alone, so that those of norms
# must be longer than 'backbone' and repeat its factor.
plain = dict(lr_mult=0.1, decay_mult=0.0)
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-5, betas=(0.95, 0.999), weight_decay=0.01),
    clip_grad=dict(max_norm=35, norm_type=2),
    paramwise_cfg=dict(
        custom_keys={
            'backbone': dict(lr_mult=0.1),
            'pos_embed': plain,
            'cls_token': plain,
            'reg_token': plain,
            'norm1.weight': plain,
            'norm1.bias': plain,
            'norm2.weight': plain,
            'norm2.bias': plain,
            'vit.norm.weight': plain,
            'vit.norm.bias': plain,
        }
    ),
)
# 30 % of the iterations up from lr / 25 to lr and the rest down to lr / 2500; the momentum (AdamW's
# first beta) goes the other way, 0.95 to 0.85 and back, as mmcv 1.x's OneCycle did by default.
peak = int(0.3 * max_iters)
param_scheduler = [
    dict(
        type='GroupOneCycleLR',
        pct_start=0.3,
        div_factor=25.0,
        final_div_factor=100.0,
        by_epoch=False,
        end=max_iters,
    ),
    dict(type='CosineAnnealingMomentum', eta_min=0.85, by_epoch=False, end=peak),
    dict(
        type='CosineAnnealingMomentum', eta_min=0.95, by_epoch=False, begin=peak, end=max_iters
    ),
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=1515)
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(
        type='CheckpointHook',
        by_epoch=False,
        interval=1515,
        max_keep_ckpts=2,
        save_best='pareto/hypervolume',
        rule='greater',
    ),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='SegVisualizationHook'),
)
