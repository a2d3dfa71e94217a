# DeiT3-B + DeiT3-L with SETR's naive head on COCO-Stuff-10K, as published with a LoRA rank of 4.
_base_ = ['./setr_snnetv2_s-l_coco-stuff10k.py']

model = dict(
    backbone=dict(
        anchors=[
            dict(model_name='deit3_base_patch16_224.fb_in22k_ft_in1k', label='B'),
            'deit3_large_patch16_224.fb_in22k_ft_in1k',
        ],
        lora_rank=4,
    )
)
