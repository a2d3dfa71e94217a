# DeiT3-S + DeiT3-L with Mask R-CNN on COCO, by ViTDet's recipe: 134 stitches from one training.
_base_ = [
    './_base_/snnetv2_detection_runtime.py',
    './_base_/models/mask-rcnn_snnetv2.py',
    './_base_/datasets/coco_lsj.py',
    './_base_/schedules/vitdet_100e.py',
]

model = dict(
    backbone=dict(
        anchors=[
            # drop path: S as on ImageNet, L as ViTDet
            dict(model_name='deit3_small_patch16_224.fb_in22k_ft_in1k', drop_path_rate=0.05),
            dict(model_name='deit3_large_patch16_224.fb_in22k_ft_in1k', drop_path_rate=0.4),
        ],
    ),
)

# 16 processes x 4 images = 64
train_dataloader = dict(batch_size=4)
