# Two small anchors on rendered rooms (tools/make_rooms.py --size 128 128): what
# mask-rcnn_snnetv2_s-l_coco.py does at full size, in minutes on two CPU cores. 32 stitches. The
# anchors' weights come from upernet_vit-s_rooms.py and upernet_vit-l_rooms.py.
_base_ = ['./mask-rcnn_snnetv2_s-l_coco.py', './_base_/models/rooms_anchors.py']

# sizes
size, channels = 128, 32
# The classes of COCO that rooms hold, in the order of their ids.
classes = ('chair', 'couch', 'potted plant', 'bed', 'dining table', 'tv')
model = dict(
    data_preprocessor=dict(pad_size_divisor=size),
    backbone=dict(
        anchors=_base_.anchors,
        img_size=size,
        out_indices=(11,),
        drop_path_rate=0.0,
        window_size=4,
        global_blocks=(2, 5, 8, 11),
    ),
    neck=dict(in_channels=96, out_channels=channels),
    rpn_head=dict(
        in_channels=channels,
        feat_channels=channels,
        anchor_generator=dict(scales=[2]),
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=channels),
        bbox_head=dict(
            in_channels=channels,
            conv_out_channels=channels,
            fc_out_channels=128,
            num_classes=len(classes),
        ),
        mask_roi_extractor=dict(out_channels=channels),
        mask_head=dict(
            num_convs=2,
            in_channels=channels,
            conv_out_channels=channels,
            num_classes=len(classes),
        ),
    ),
    train_cfg=dict(
        rpn_proposal=dict(nms_pre=300, max_per_img=100), rcnn=dict(sampler=dict(num=64))
    ),
    test_cfg=dict(rpn=dict(nms_pre=300, max_per_img=50), rcnn=dict(max_per_img=20)),
)

# data
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='FilterAnnotations', min_gt_bbox_wh=(2, 2)),
    dict(type='RandomFlip', prob=0.5),
    dict(  # no scale_factor, as nothing is resized
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'flip', 'flip_direction'),
    ),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(size, size), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
data_root = 'data/rooms_coco/'
rooms = dict(data_root=data_root, metainfo=dict(classes=classes))
# Without worker processes a resumed run repeats an uninterrupted one to the bit.
loader = dict(num_workers=0, persistent_workers=False)
train_dataloader = dict(batch_size=8, dataset=dict(pipeline=train_pipeline, **rooms), **loader)
val_dataloader = dict(batch_size=8, dataset=dict(pipeline=test_pipeline, **rooms), **loader)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val2017.json')
test_evaluator = val_evaluator

# schedule
max_iters = 5000
optim_wrapper = dict(
    optimizer=dict(lr=1e-3, weight_decay=0.05), paramwise_cfg=dict(decay_rate=0.9)
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='PolyLR', eta_min=0.0, power=1.0, begin=50, end=max_iters, by_epoch=False),
]
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
default_hooks = dict(logger=dict(interval=50), checkpoint=dict(interval=500))
custom_hooks = [
    dict(type='StitchInitHook', num_images=100, batch_size=10),
    # Bins relative to the range of FLOPs: 40 GFLOPs would put all stitches into one.
    dict(
        type='StitchSamplingHook',
        sampler=dict(type='CostBinStitchSampler', relative_bin_width=0.03),
    ),
]
