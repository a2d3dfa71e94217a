# DeiT3-S + DeiT3-L with UperNet on ADE20K: 134 stitches of 102 to 430 GFLOPs from one training.
_base_ = [
    './_base_/snnetv2_runtime.py',
    'mmseg::_base_/default_runtime.py',
    'mmseg::_base_/datasets/ade20k.py',
    './_base_/models/upernet_snnetv2.py',
    './_base_/schedules/adamw_160k.py',
]

# 8 processes x 2 images = 16
train_dataloader = dict(batch_size=2)
