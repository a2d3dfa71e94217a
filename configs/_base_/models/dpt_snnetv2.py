# DPT for depth on a stitched ViT, 480x640. The head costs 167.8 GFLOPs.
data_preprocessor = dict(
    type='SegDataPreProcessor',
    # As published, although DeiT3 was pretrained with ImageNet's statistics: StitchInitHook
    # names those, which may be put here instead.
    mean=[127.5, 127.5, 127.5],
    std=[127.5, 127.5, 127.5],
    bgr_to_rgb=True,
    pad_val=0,
    seg_pad_val=0,  # depth of padding: unknown
    size=(416, 544),
)
model = dict(
    type='DepthEstimator',
    data_preprocessor=data_preprocessor,
    backbone=dict(
        type='StitchedViT',
        anchors=[
            'deit3_small_patch16_224.fb_in22k_ft_in1k',
            'deit3_large_patch16_224.fb_in22k_ft_in1k',
        ],
        img_size=(480, 640),
        out_indices=(4, 11, 17, 23),
        lora_rank=16,
        drop_path_rate=0.0,
        output_cls_token=True,
    ),
    decode_head=dict(
        type='DPTDepthHead',
        in_channels=[1024, 1024, 1024, 1024],
        channels=256,
        post_process_channels=[96, 192, 384, 768],
        readout_type='project',
        min_depth=1e-3,
        max_depth=10.0,
        # Not published: with torch's own bias some seeds start where the rectifier is flat.
        init_depth=2.0,
        loss_decode=dict(type='SigLoss', warm_up_iters=100, loss_weight=1.0),
    ),
    train_cfg=dict(),
    # The whole picture and its mirror image, averaged: one window, as large as the picture.
    # (mmseg's mode 'slide' would run whole pictures here, whatever its windows.)
    test_cfg=dict(mode='slide_flip', crop_size=(480, 640), stride=(480, 640)),
)
