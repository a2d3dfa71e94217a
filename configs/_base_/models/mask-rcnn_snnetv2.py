# Mask R-CNN on a stitched ViT as in ViTDet (arXiv 2203.16527): attention in windows of 14 x 14
# patches but for four global blocks, a simple feature pyramid from the last map alone, two
# convolutions in the RPN, four and one layers in the box head, norms over channels everywhere.
# Anchors and drop path come with the leaf.
_base_ = 'mmdet::_base_/models/mask-rcnn_r50_fpn.py'

norm_cfg = dict(type='LN2d', eps=1e-6)
img_size = 1024
model = dict(
    # Every image is padded to the full square, in training and test alike, so that position
    # embeddings are never squeezed to another aspect ratio.
    data_preprocessor=dict(pad_size_divisor=img_size),
    backbone=dict(
        _delete_=True,
        type='StitchedViT',
        img_size=img_size,
        out_indices=(23,),
        window_size=14,
        global_blocks=(5, 11, 17, 23),
        lora_rank=16,
    ),
    neck=dict(
        _delete_=True,
        type='SimpleFeaturePyramid',
        in_channels=1024,
        out_channels=256,
        num_outs=5,
        norm_cfg=norm_cfg,
    ),
    rpn_head=dict(num_convs=2),
    roi_head=dict(
        bbox_head=dict(type='Shared4Conv1FCBBoxHead', conv_out_channels=256, norm_cfg=norm_cfg),
        mask_head=dict(norm_cfg=norm_cfg),
    ),
)
