# Two small anchors on the objects of rendered rooms (tools/make_rooms.py --layout objects): what
# cls_snnetv2_s-l_in1k.py does at full size, in minutes on two CPU cores. 32 stitches. The anchors'
# weights come from cls_vit-s_rooms.py and cls_vit-l_rooms.py.
_base_ = [
    './_base_/snnetv2_classification_runtime.py',
    './_base_/models/cls_snnetv2.py',
    './_base_/schedules/lamb_50e.py',
]

# sizes
size = 48
# Iterations that cls_vit-s_rooms.py and cls_vit-l_rooms.py train each anchor by itself: four
# and six epochs.
small_iters, large_iters = 3000, 4500
classes = (
    'armchair', 'bed', 'box', 'cabinet', 'chair', 'curtain', 'cushion', 'door', 'lamp',
    'painting', 'pillow', 'plant', 'rug', 'screen', 'shelf', 'sofa', 'stool', 'table',
    'windowpane',
)  # fmt: skip
vit = dict(model_name='deit_tiny_patch16_224', pretrained=False)
anchors = [
    dict(
        label='S',
        model_kwargs=dict(patch_size=8, depth=6, embed_dim=24, num_heads=3),
        checkpoint=f'work_dirs/rooms/cls-vit-s/iter_{small_iters}.pth',
        checkpoint_prefix='backbone.anchors.S.vit.',
        **vit,
    ),
    dict(
        label='L',
        model_kwargs=dict(patch_size=8, depth=12, embed_dim=96, num_heads=3),
        checkpoint=f'work_dirs/rooms/cls-vit-l/iter_{large_iters}.pth',
        checkpoint_prefix='backbone.anchors.L.vit.',
        **vit,
    ),
]
data_preprocessor = dict(num_classes=len(classes))
model = dict(
    # Trained from scratch for four epochs, anchors underfit: no stochastic depth.
    backbone=dict(
        anchors=anchors, img_size=size, out_indices=(11,), lora_rank=16, drop_path_rate=0.0
    ),
    head=dict(
        num_classes=len(classes),
        in_channels=dict(_delete_=True, S=24, L=96),
        pool='avg',
        loss=dict(_delete_=True, type='CrossEntropyLoss'),
        topk=(1,),
    ),
    train_cfg=None,  # no CutMix
)

# data
resize = dict(type='Resize', scale=(size, size))
train_pipeline = [
    dict(type='LoadImageFromFile'),
    resize,
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [dict(type='LoadImageFromFile'), resize, dict(type='PackInputs')]
rooms = dict(type='CustomDataset', data_root='data/rooms', metainfo=dict(classes=classes))
# Without worker processes a resumed run repeats an uninterrupted one to the bit.
loader = dict(
    num_workers=0, persistent_workers=False, collate_fn=dict(type='default_collate')
)
train_dataloader = dict(
    batch_size=32,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(data_prefix='train', pipeline=train_pipeline, **rooms),
    **loader,
)
val_dataloader = dict(
    batch_size=64,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(data_prefix='val', pipeline=test_pipeline, **rooms),
    **loader,
)
test_dataloader = val_dataloader
val_evaluator = dict(type='Accuracy', topk=(1,))
test_evaluator = val_evaluator

# schedule
max_iters = 2000
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=5e-4, weight_decay=0.05),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type='PolyLR', eta_min=0.0, power=1.0, begin=100, end=max_iters, by_epoch=False),
]
train_cfg = dict(
    _delete_=True, type='IterBasedTrainLoop', max_iters=max_iters, val_interval=max_iters
)
auto_scale_lr = dict(base_batch_size=32)
log_processor = dict(by_epoch=False)
default_hooks = dict(
    logger=dict(interval=20), checkpoint=dict(by_epoch=False, interval=500)
)
custom_hooks = [
    dict(type='StitchInitHook', num_images=200, batch_size=20),
    # Bins relative to the range of FLOPs: 1 GFLOP would put all stitches into one.
    dict(
        type='StitchSamplingHook',
        sampler=dict(type='CostBinStitchSampler', relative_bin_width=0.03, per_rank=True),
    ),
]
