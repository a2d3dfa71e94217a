# DINOv2 with registers, S + L, with UperNet on ADE20K. Its patches of 14 pixels want 518 x 518.
_base_ = [
    './_base_/snnetv2_runtime.py',
    'mmseg::_base_/default_runtime.py',
    './_base_/datasets/ade20k_518.py',
    './_base_/models/upernet_snnetv2.py',
    './_base_/schedules/adamw_160k.py',
]

model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=dict(
        anchors=[
            'vit_small_patch14_reg4_dinov2.lvd142m',
            'vit_large_patch14_reg4_dinov2.lvd142m',
        ],
        img_size=_base_.crop_size,
        final_norm=True,  # as DINOv2's own dense evaluations take features
    ),
    test_cfg=dict(crop_size=_base_.crop_size, stride=(345, 345)),
)

# 8 processes x 2 images = 16
train_dataloader = dict(batch_size=2)
