# Two DeiT3 at 224x224, each with a classifier of its own on its class token. Between them nothing
# but crossings is stitched: a stitch is classified by the anchor in which it ends.
data_preprocessor = dict(
    num_classes=1000,
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    to_rgb=True,
)
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='StitchedViT',
        anchors=[
            dict(
                model_name='deit3_small_patch16_224.fb_in22k_ft_in1k',
                drop_path_rate=0.05,
                drop_path_mode='constant',
            ),
            dict(
                model_name='deit3_large_patch16_224.fb_in22k_ft_in1k',
                drop_path_rate=0.4,
                drop_path_mode='constant',
            ),
        ],
        img_size=224,
        out_indices=(23,),
        lift_taps=False,
        final_norm=True,
        lora_rank=64,
    ),
    neck=None,
    head=dict(
        type='StitchedClsHead',
        num_classes=1000,
        in_channels=dict(S=384, L=1024),
        pool='token',
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
        topk=(1, 5),
    ),
    train_cfg=dict(augments=dict(type='CutMix', alpha=1.0)),
)
