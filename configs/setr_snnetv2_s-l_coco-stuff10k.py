# DeiT3-S + DeiT3-L with SETR's naive head on COCO-Stuff-10K: the published recipe, 134 stitches.
_base_ = [
    './_base_/snnetv2_runtime.py',
    'mmseg::_base_/default_runtime.py',
    'mmseg::_base_/datasets/coco-stuff10k.py',
    './_base_/models/setr_snnetv2.py',
    './_base_/schedules/sgd_80k.py',
]

model = dict(
    decode_head=dict(num_classes=171),
    auxiliary_head=[dict(head, num_classes=171) for head in _base_.model.auxiliary_head],
)

# 8 processes x 2 images = 16
train_dataloader = dict(batch_size=2)
