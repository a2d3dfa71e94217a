# SETR's naive head (arXiv 2012.15840) on a stitched ViT, as SN-Netv2 is published for segmentation:
# one head on the last map, three auxiliary ones on the others. The head costs 920,125,440 FLOPs at
# 512x512 and 150 classes.
norm_cfg = dict(type='SyncBN', requires_grad=True)
data_preprocessor = dict(
    type='SegDataPreProcessor',
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    bgr_to_rgb=True,
    pad_val=0,
    seg_pad_val=255,
    size=(512, 512),
)
setr_head = dict(
    type='SETRUPHead',
    in_channels=1024,
    channels=256,
    in_index=3,
    num_classes=150,
    dropout_ratio=0,
    norm_cfg=norm_cfg,
    num_convs=1,
    up_scale=4,
    kernel_size=1,
    align_corners=False,
    loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
)
auxiliary = dict(
    num_convs=2,
    loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=0.4),
)
model = dict(
    type='EncoderDecoder',
    data_preprocessor=data_preprocessor,
    backbone=dict(
        type='StitchedViT',
        anchors=[
            'deit3_small_patch16_224.fb_in22k_ft_in1k',
            'deit3_large_patch16_224.fb_in22k_ft_in1k',
        ],
        img_size=512,
        out_indices=(9, 14, 19, 23),
        lora_rank=16,
        drop_path_rate=0.1,
    ),
    decode_head=setr_head,
    auxiliary_head=[
        dict(setr_head, in_index=0, **auxiliary),
        dict(setr_head, in_index=1, **auxiliary),
        dict(setr_head, in_index=2, **auxiliary),
    ],
    train_cfg=dict(),
    test_cfg=dict(mode='slide', crop_size=(512, 512), stride=(341, 341)),
)
