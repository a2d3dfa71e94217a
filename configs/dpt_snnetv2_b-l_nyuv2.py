# DeiT3-B + DeiT3-L with DPT on NYUv2 depth, as published with a LoRA rank of 4.
_base_ = ['./dpt_snnetv2_s-l_nyuv2.py']

model = dict(
    backbone=dict(
        anchors=[
            dict(model_name='deit3_base_patch16_224.fb_in22k_ft_in1k', label='B'),
            'deit3_large_patch16_224.fb_in22k_ft_in1k',
        ],
        lora_rank=4,
    )
)
