# DeiT3-S + DeiT3-L with DPT on NYUv2 depth, as published: 134 stitches of 209 to 603 GFLOPs from
# one training. dpt_snnetv2_s-l_nyuv2_as-released.py has the learning rates of the released code.
_base_ = [
    './_base_/snnetv2_runtime.py',
    'mmseg::_base_/default_runtime.py',
    './_base_/datasets/nyuv2_416x544.py',
    './_base_/models/dpt_snnetv2.py',
    './_base_/schedules/one_cycle_nyuv2.py',
]

custom_hooks = [
    dict(type='StitchInitHook', num_images=10),  # as published for depth
    dict(type='StitchSamplingHook', sampler=dict(type='CostBinStitchSampler', bin_width=10.0)),
]
# RMSE in metres; 1 is taken as the worst for the area under the front.
val_cfg = dict(metric='rmse', rule='less', metric_range=(1.0, 0.0))
test_cfg = dict(metric='rmse', rule='less', metric_range=(1.0, 0.0))
