# DeiT3-S + DeiT3-B on ImageNet-1K, as published: both of 12 blocks.
_base_ = ['./cls_snnetv2_s-l_in1k.py']

model = dict(
    backbone=dict(
        anchors=[
            dict(
                model_name='deit3_small_patch16_224.fb_in22k_ft_in1k',
                drop_path_rate=0.05,
                drop_path_mode='constant',
            ),
            dict(
                model_name='deit3_base_patch16_224.fb_in22k_ft_in1k',
                label='B',
                drop_path_rate=0.15,
                drop_path_mode='constant',
            ),
        ],
        out_indices=(11,),
    ),
    head=dict(in_channels=dict(_delete_=True, S=384, B=768)),
)
