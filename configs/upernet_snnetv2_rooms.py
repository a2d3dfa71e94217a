# Two small anchors on rendered rooms (tools/make_rooms.py): what upernet_snnetv2_ade20k.py does at
# full size, in minutes on two CPU cores. 32 stitches. The anchors' weights come from
# upernet_vit-s_rooms.py and upernet_vit-l_rooms.py; `make demo` runs it all.
_base_ = ['./upernet_snnetv2_ade20k.py', './_base_/models/rooms_anchors.py']

# sizes
crop_size = (96, 96)
# The classes of ADE20K that rooms hold (mmseg writes 'bed ' so); the others are left out.
classes = (
    'wall', 'floor', 'ceiling', 'bed ', 'windowpane', 'cabinet', 'door', 'table', 'plant',
    'curtain', 'chair', 'painting', 'sofa', 'shelf', 'rug', 'armchair', 'lamp', 'cushion', 'box',
    'pillow', 'stool', 'screen',
)  # fmt: skip
model = dict(
    data_preprocessor=dict(size=crop_size),
    backbone=dict(
        anchors=_base_.anchors, img_size=crop_size, out_indices=(2, 5, 8, 11), drop_path_rate=0.0
    ),
    neck=dict(in_channels=[96] * 4, out_channels=32, scales=[2, 1, 1, 1]),
    decode_head=dict(in_channels=[32] * 4, channels=32, num_classes=len(classes)),
    auxiliary_head=None,
    test_cfg=dict(_delete_=True, mode='whole'),
)

# data
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='PackSegInputs'),
]
rooms = dict(data_root='data/rooms', metainfo=dict(classes=classes))
# Without worker processes a resumed run repeats an uninterrupted one to the bit.
loader = dict(num_workers=0, persistent_workers=False)
train_dataloader = dict(batch_size=8, dataset=dict(pipeline=train_pipeline, **rooms), **loader)
val_dataloader = dict(batch_size=16, dataset=dict(pipeline=test_pipeline, **rooms), **loader)
test_dataloader = val_dataloader

# schedule
max_iters = 3000
# One learning rate for all depths: the anchors have seen nothing but rooms either.
optim_wrapper = dict(
    optimizer=dict(lr=5e-4, weight_decay=0.05), paramwise_cfg=dict(decay_rate=1.0)
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='PolyLR', eta_min=0.0, power=1.0, begin=50, end=max_iters, by_epoch=False),
]
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(interval=100))
custom_hooks = [
    # All stitches deliver maps in the feature space of the large anchor: begin with its head.
    dict(
        type='StitchInitHook',
        num_images=200,
        batch_size=20,
        head_checkpoint=_base_.anchors[1]['checkpoint'],
    ),
    # Bins relative to the range of FLOPs: 10 GFLOPs would put all stitches into one.
    dict(
        type='StitchSamplingHook',
        sampler=dict(type='CostBinStitchSampler', relative_bin_width=0.03),
    ),
]
