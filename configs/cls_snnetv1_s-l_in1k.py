# Baseline in the style of SN-Net (arXiv 2302.06586): from the cheap anchor to the costly one alone,
# stitch layers trained as a whole without LoRA, stitches drawn uniformly. 13 stitches.
_base_ = ['./cls_snnetv2_s-l_in1k.py']

model = dict(backbone=dict(scheme='one_way', lora_rank=0))
custom_hooks = [
    dict(type='StitchInitHook', num_images=100, classifiers='pretrained'),
    dict(
        type='StitchSamplingHook',
        sampler=dict(type='UniformStitchSampler', per_rank=True),
    ),
]
