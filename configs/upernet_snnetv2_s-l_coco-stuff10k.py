# DeiT3-S + DeiT3-L with UperNet on COCO-Stuff-10K: 134 stitches.
_base_ = [
    './_base_/snnetv2_runtime.py',
    'mmseg::_base_/default_runtime.py',
    'mmseg::_base_/datasets/coco-stuff10k.py',
    './_base_/models/upernet_snnetv2.py',
    './_base_/schedules/adamw_80k.py',
]

model = dict(decode_head=dict(num_classes=171), auxiliary_head=dict(num_classes=171))

# 8 processes x 2 images = 16
train_dataloader = dict(batch_size=2)
