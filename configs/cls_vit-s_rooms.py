# Anchor S of cls_snnetv2_rooms.py trained by itself, as a plain classifier.
_base_ = ['./cls_snnetv2_rooms.py']

anchor = dict(_base_.anchors[0], checkpoint=None, checkpoint_prefix='')
model = dict(
    backbone=dict(anchors=[anchor], out_indices=(5,)),
    head=dict(in_channels=dict(_delete_=True, S=24)),
)

optim_wrapper = dict(optimizer=dict(lr=5e-3))
max_iters = _base_.small_iters
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type='PolyLR', eta_min=0.0, power=1.0, begin=100, end=max_iters, by_epoch=False),
]
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
custom_hooks = [dict(type='StitchSamplingHook')]  # one route; it makes resuming exact
