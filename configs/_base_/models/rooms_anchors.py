# The two small anchors of the rooms (tools/make_rooms.py), with the iterations that
# upernet_vit-s_rooms.py and upernet_vit-l_rooms.py train each by itself.
small_iters, large_iters = 1200, 2400
vit = dict(model_name='deit_tiny_patch16_224', pretrained=False)
anchors = [
    dict(
        label='S',
        model_kwargs=dict(depth=6, embed_dim=24, num_heads=3),
        checkpoint=f'work_dirs/rooms/vit-s/iter_{small_iters}.pth',
        checkpoint_prefix='backbone.anchors.S.vit.',
        **vit,
    ),
    dict(
        label='L',
        model_kwargs=dict(depth=12, embed_dim=96, num_heads=3),
        checkpoint=f'work_dirs/rooms/vit-l/iter_{large_iters}.pth',
        checkpoint_prefix='backbone.anchors.L.vit.',
        **vit,
    ),
]
