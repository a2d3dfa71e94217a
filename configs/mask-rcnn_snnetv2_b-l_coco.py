# DeiT3-B + DeiT3-L with Mask R-CNN on COCO.
_base_ = ['./mask-rcnn_snnetv2_s-l_coco.py']

model = dict(
    backbone=dict(
        anchors=[
            # drop path as in ViTDet
            dict(
                model_name='deit3_base_patch16_224.fb_in22k_ft_in1k',
                label='B',
                drop_path_rate=0.1,
            ),
            dict(
                model_name='deit3_large_patch16_224.fb_in22k_ft_in1k',
                label='L',
                drop_path_rate=0.4,
            ),
        ],
        lora_rank=4,  # as published for B + L
    ),
)
