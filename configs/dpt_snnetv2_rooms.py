# Two small anchors on the depth of rendered rooms (tools/make_rooms.py): what
# dpt_snnetv2_s-l_nyuv2.py does at full size, in minutes on two CPU cores. 32 stitches. The anchors
# are those of upernet_snnetv2_rooms.py, trained for segmentation, as NYUv2's come from ImageNet.
_base_ = ['./dpt_snnetv2_s-l_nyuv2.py', './_base_/models/rooms_anchors.py']

# sizes
size = (96, 96)
model = dict(
    # as in the anchors' own training
    data_preprocessor=dict(
        mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], size=size
    ),
    backbone=dict(anchors=_base_.anchors, img_size=size, out_indices=(2, 5, 8, 11)),
    decode_head=dict(
        in_channels=[96] * 4, channels=16, post_process_channels=[16, 24, 32, 48]
    ),
    test_cfg=dict(crop_size=size, stride=size),
)

# data
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadDepthAnnotation', depth_rescale_factor=1e-3),
    dict(type='RandomFlip', prob=0.5),
    dict(type='ColorAug', prob=0.5),
    dict(type='PackSegInputs'),
]
# Without worker processes a resumed run repeats an uninterrupted one to the bit.
loader = dict(num_workers=0, persistent_workers=False)
rooms = dict(data_root='data/rooms')
train_dataloader = dict(batch_size=8, dataset=dict(pipeline=train_pipeline, **rooms), **loader)
val_dataloader = dict(batch_size=16, dataset=rooms, **loader)
test_dataloader = val_dataloader
val_evaluator = dict(crop_type=None)
test_evaluator = val_evaluator

# schedule
max_iters = 2000
peak = int(0.3 * max_iters)
one_cycle, momentum_down, momentum_up = _base_.param_scheduler
param_scheduler = [
    dict(one_cycle, end=max_iters),
    dict(momentum_down, end=peak),
    dict(momentum_up, begin=peak, end=max_iters),
]
optim_wrapper = dict(optimizer=dict(lr=2e-3))
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(interval=100))
custom_hooks = [
    dict(type='StitchInitHook', num_images=200, batch_size=20),
    # Bins relative to the range of FLOPs: 10 GFLOPs would put all stitches into one.
    dict(
        type='StitchSamplingHook',
        sampler=dict(type='CostBinStitchSampler', relative_bin_width=0.03),
    ),
]
