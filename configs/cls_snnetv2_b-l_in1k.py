# DeiT3-B + DeiT3-L on ImageNet-1K, as published.
_base_ = ['./cls_snnetv2_s-l_in1k.py']

model = dict(
    backbone=dict(
        anchors=[
            dict(
                model_name='deit3_base_patch16_224.fb_in22k_ft_in1k',
                label='B',
                drop_path_rate=0.15,
                drop_path_mode='constant',
            ),
            dict(
                model_name='deit3_large_patch16_224.fb_in22k_ft_in1k',
                drop_path_rate=0.4,
                drop_path_mode='constant',
            ),
        ],
    ),
    head=dict(in_channels=dict(_delete_=True, B=768, L=1024)),
)
