# DINOv3, S + L, with UperNet on ADE20K.
_base_ = ['./upernet_snnetv2_ade20k.py']

model = dict(
    backbone=dict(
        anchors=['vit_small_patch16_dinov3.lvd1689m', 'vit_large_patch16_dinov3.lvd1689m'],
        final_norm=True,  # as DINOv3's own dense evaluations take features
    )
)
