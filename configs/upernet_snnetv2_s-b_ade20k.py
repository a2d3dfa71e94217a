# DeiT3-S + DeiT3-B with UperNet on ADE20K: both of 12 blocks, 134 cheaper stitches.
_base_ = ['./upernet_snnetv2_ade20k.py']

model = dict(
    backbone=dict(
        anchors=[
            'deit3_small_patch16_224.fb_in22k_ft_in1k',
            dict(model_name='deit3_base_patch16_224.fb_in22k_ft_in1k', label='B'),
        ],
        out_indices=(2, 5, 8, 11),
    ),
    neck=dict(in_channels=[768, 768, 768, 768]),
)
# Budgets lie 6 GFLOPs apart, from 33 to 107 of the backbone: bins of 10 would lump them together.
custom_hooks = [
    dict(type='StitchInitHook', num_images=50),
    dict(type='StitchSamplingHook', sampler=dict(type='CostBinStitchSampler', bin_width=5.0)),
]
