# DeiT3-S + DeiT3-L on ImageNet-1K, as published: 134 stitches from 4.6 to 61.6 GFLOPs.
_base_ = [
    './_base_/snnetv2_classification_runtime.py',
    './_base_/models/cls_snnetv2.py',
    './_base_/datasets/imagenet_three_augment.py',
    './_base_/schedules/lamb_50e.py',
]
