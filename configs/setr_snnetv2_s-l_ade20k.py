# DeiT3-S + DeiT3-L with SETR's naive head on ADE20K: the published recipe, 134 stitches.
_base_ = [
    './_base_/snnetv2_runtime.py',
    'mmseg::_base_/default_runtime.py',
    'mmseg::_base_/datasets/ade20k.py',
    './_base_/models/setr_snnetv2.py',
    './_base_/schedules/sgd_160k.py',
]

# 8 processes x 2 images = 16
train_dataloader = dict(batch_size=2)
