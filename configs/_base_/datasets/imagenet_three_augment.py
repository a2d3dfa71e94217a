# ImageNet-1K with DeiT III's simple random crop (the short side resized to 224, 4 reflected pixels
# around, a random window) and its three augmentations (arXiv 2204.07118): one of grey, solarised
# and blurred, then a jitter of colours of 0.3. Evaluation resizes the short side to 224 and cuts
# the centre: a crop ratio of 1.0.
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='ResizeEdge', scale=224, edge='short', backend='pillow', interpolation='bicubic'
    ),
    # torchvision's, since MMPretrain's own RandomCrop pads by zeros whatever its padding_mode is.
    dict(type='NumpyToPIL'),
    dict(type='torchvision/RandomCrop', size=224, padding=4, padding_mode='reflect'),
    dict(type='PILToNumpy'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(
        type='RandomChoice',
        transforms=[
            [dict(type='RandomGrayscale', prob=1.0, keep_channels=True)],
            [dict(type='Solarize', thr=128, prob=1.0)],
            [
                dict(
                    type='GaussianBlur', magnitude_range=(0.1, 2.0), magnitude_std='inf', prob=1.0
                )
            ],
        ],
    ),
    dict(type='ColorJitter', brightness=0.3, contrast=0.3, saturation=0.3),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='ResizeEdge', scale=224, edge='short', backend='pillow', interpolation='bicubic'
    ),
    dict(type='CenterCrop', crop_size=224),
    dict(type='PackInputs'),
]
imagenet = dict(type='ImageNet', data_root='data/imagenet')
train_dataloader = dict(
    batch_size=64,
    num_workers=8,
    persistent_workers=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(split='train', pipeline=train_pipeline, **imagenet),
)
val_dataloader = dict(
    batch_size=64,
    num_workers=8,
    persistent_workers=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(split='val', pipeline=test_pipeline, **imagenet),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='Accuracy', topk=(1, 5))
test_evaluator = val_evaluator
