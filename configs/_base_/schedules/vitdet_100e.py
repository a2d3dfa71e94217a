# ViTDet's schedule: 100 epochs of 118,000 images in batches of 64 = 184,375 iterations; the
# learning rate falls tenfold after 8/9 (163,889) and 26/27 (177,546) of them.
optim_wrapper = dict(
    type='OptimWrapper',  # mmdet's train.py --amp makes it AmpOptimWrapper, as published
    optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.1),
    constructor='StitchLayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(decay_rate=0.8),  # ViT-L's; ViT-B alone takes 0.7
)
max_iters = 184375
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=250),
    dict(
        type='MultiStepLR', milestones=[163889, 177546], gamma=0.1, by_epoch=False, begin=0,
        end=max_iters,
    ),
]  # fmt: skip
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=20000)
auto_scale_lr = dict(base_batch_size=64)
