# What every stitched training needs, whatever its head and data.
# Recipes name this file first among their bases: where the maintained forks of the OpenMMLab
# packages are installed, `mmseg::` and `mmdet::` are found once mmsnnet has been imported, and
# custom_imports comes after all bases.
__import__('mmsnnet')
custom_imports = dict(imports=['mmsnnet'], allow_failed_imports=False)

custom_hooks = [
    # Least-squares fit of the stitch layers on 50 training images, as published.
    dict(type='StitchInitHook', num_images=50),
    # Bins of 10 GFLOPs, as published for 512x512.
    dict(type='StitchSamplingHook', sampler=dict(type='CostBinStitchSampler', bin_width=10.0)),
]

# Each iteration runs one stitch: the blocks and stitch layers of the others get no gradient, which
# DistributedDataParallel must be told.
find_unused_parameters = True
# This wrapper exchanges the gradients of what ran, and no zeros (docs/scale.md):
# model_wrapper_cfg = dict(type='StitchDistributedDataParallel')

# The anchors bound what lies between them; tools/test_all_stitches.py scores all the others.
# stitches='front' follows the front within a fixed number of forwards (docs/front.md).
val_cfg = dict(type='StitchValLoop', stitches='anchors', metric='mIoU')
test_cfg = dict(type='StitchTestLoop', default_stitches='anchors', metric='mIoU')
