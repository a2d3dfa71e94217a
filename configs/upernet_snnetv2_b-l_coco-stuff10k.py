# DeiT3-B + DeiT3-L with UperNet on COCO-Stuff-10K; LoRA of rank 4, as this pair is published.
_base_ = ['./upernet_snnetv2_s-l_coco-stuff10k.py']

model = dict(
    backbone=dict(
        anchors=[
            dict(model_name='deit3_base_patch16_224.fb_in22k_ft_in1k', label='B'),
            'deit3_large_patch16_224.fb_in22k_ft_in1k',
        ],
        lora_rank=4,
    )
)
