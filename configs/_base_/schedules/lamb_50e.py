# LAMB at 3e-5 with weight decay 0.02, for 50 epochs of 8 x 64 images: 5 of warm-up from 1e-7, then
# a cosine to 1e-5. Published with apex' FusedLAMB; mmpretrain's Lamb is the same rule. Norms,
# biases, tokens and position embeddings are without weight decay, as in timm.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='Lamb', lr=3e-5, weight_decay=0.02),
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        flat_decay_mult=0.0,
        custom_keys={'.cls_token': dict(decay_mult=0.0), '.pos_embed': dict(decay_mult=0.0)},
    ),
)
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-7 / 3e-5,
        begin=0,
        end=5,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
    dict(
        type='CosineAnnealingLR',
        eta_min=1e-5,
        T_max=45,
        begin=5,
        end=50,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=50, val_interval=5)
auto_scale_lr = dict(base_batch_size=512, enable=False)
