# What every stitched training of a detector needs, whatever its head and data.
_base_ = ['./snnetv2_runtime.py', 'mmdet::_base_/default_runtime.py']

log_processor = dict(by_epoch=False)
default_hooks = dict(
    logger=dict(log_metric_by_epoch=False),
    checkpoint=dict(
        by_epoch=False,
        interval=5000,
        max_keep_ckpts=2,
        save_best='pareto/hypervolume',
        rule='greater',
    ),
)
custom_hooks = [
    dict(type='StitchInitHook', num_images=50),
    # 10 GFLOPs at 512x512, as published, are 40 at 1024x1024.
    dict(type='StitchSamplingHook', sampler=dict(type='CostBinStitchSampler', bin_width=40.0)),
]

# Precisions are in [0, 1]. With masks as well, segm_mAP is reported beside.
val_cfg = dict(metric='coco/bbox_mAP', metric_range=(0.0, 1.0))
test_cfg = dict(metric='coco/bbox_mAP', metric_range=(0.0, 1.0))
