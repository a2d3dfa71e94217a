"""What a rendered room promises."""

from __future__ import annotations

import numpy as np
import pytest
from rooms import LABELS, SCENES, plan_room, render_room, scene_of
from rooms.kinds import NAMES, SURFACES

SIZE = (40, 56)


@pytest.fixture(scope='module')
def rooms():
    return [render_room(5, 'train', index, SIZE) for index in range(60)]


def test_arrays_have_the_promised_shapes_and_types(rooms):
    room = rooms[0]
    assert (room.rgb.shape, room.rgb.dtype) == ((*SIZE, 3), np.uint8)
    assert (room.label.shape, room.label.dtype) == (SIZE, np.uint8)
    assert (room.depth_mm.shape, room.depth_mm.dtype) == (SIZE, np.uint16)
    assert (room.instance.shape, room.instance.dtype) == (SIZE, np.uint16)


def test_the_same_arguments_give_the_same_picture():
    first, second = (render_room(3, 'val', 7, SIZE) for _ in range(2))
    for name in ('rgb', 'label', 'depth_mm', 'instance'):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


def test_no_global_random_state_is_read_or_changed():
    np.random.seed(1)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first = render_room(3, 'train', 0, SIZE).rgb
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002
    np.random.seed(2)  # noqa: NPY002
    np.testing.assert_array_equal(first, render_room(3, 'train', 0, SIZE).rgb)


def test_every_room_of_both_splits_and_of_other_seeds_is_another_one():
    keys = [(seed, split, index) for seed in (0, 1) for split in ('train', 'val')
            for index in range(40)]
    sizes = {plan_room(*key).size for key in keys}
    assert len(sizes) == len(keys)


def test_other_sizes_show_the_same_room():
    small, large = render_room(2, 'train', 5, (33, 33)), render_room(2, 'train', 5, (99, 99))
    # Pixel centres of an odd multiple coincide.
    np.testing.assert_array_equal(small.label, large.label[1::3, 1::3])
    np.testing.assert_array_equal(small.instance, large.instance[1::3, 1::3])
    off = np.abs(small.depth_mm.astype(int) - large.depth_mm[1::3, 1::3])
    assert off.max() <= 1


def test_every_pixel_has_a_known_label_and_a_depth_within_the_room(rooms):
    for room in rooms:
        assert set(np.unique(room.label)) <= set(LABELS.values())
        assert room.depth_mm.min() > 0
        assert room.depth_mm.max() < 9000


def test_sixty_rooms_show_all_kinds(rooms):
    shown = {NAMES[value] for room in rooms for value in np.unique(room.label)}
    assert len(shown) >= 12
    assert shown == set(LABELS)


def test_sixty_rooms_show_all_types_of_room(rooms):
    assert {room.scene for room in rooms} == set(SCENES)
    assert [scene_of(5, 'train', index) for index in range(60)] == [room.scene for room in rooms]


def test_instances_are_objects_of_one_kind_each(rooms):
    for room in rooms:
        surface = np.isin(room.label, [LABELS[name] for name in SURFACES])
        np.testing.assert_array_equal(room.instance == 0, surface)
        for instance, kind in room.objects.items():
            assert set(room.label[room.instance == instance]) == {LABELS[kind]}
        assert set(room.objects) == set(np.unique(room.instance)) - {0}


def test_pictures_are_neither_dark_nor_burnt_out_nor_flat(rooms):
    for room in rooms:
        assert 40 < np.median(room.rgb) < 235
        assert room.rgb.std() > 12


def test_colours_do_not_give_the_kinds_away(rooms):
    """The best guess from a colour alone (16 levels a channel) is little better than 'wall'."""
    half = len(rooms) // 2

    def cells(part):
        rgb = np.concatenate([room.rgb.reshape(-1, 3) for room in part]) // 16
        label = np.concatenate([room.label.ravel() for room in part])
        return rgb @ np.array([256, 16, 1]), label

    votes = np.zeros((4096, 256), int)
    np.add.at(votes, cells(rooms[:half]), 1)
    color, label = cells(rooms[half:])
    guess = votes.argmax(axis=1)[color]
    scores = [np.mean(guess[label == value] == value) for value in LABELS.values()
              if (label == value).any()]
    assert np.mean(scores) < 0.15


@pytest.mark.parametrize(('arguments', 'word'), [
    ((0, 'test', 0, SIZE), 'split'), ((-1, 'train', 0, SIZE), 'seed'),
    ((0, 'train', -2, SIZE), 'index'), ((0, 'train', 0, (31, 64)), '31x64')])
def test_arguments_out_of_range_are_named(arguments, word):
    with pytest.raises(ValueError, match=word):
        render_room(*arguments)


def test_label_values_are_those_of_ade20k():
    import mmsnnet  # noqa: F401
    ade = pytest.importorskip('mmseg.datasets')
    classes = [name.strip() for name in ade.ADE20KDataset.METAINFO['classes']]
    assert {name: classes.index(name) + 1 for name in LABELS} == dict(LABELS)
    assert set(SCENES) <= set(ade.NYUDataset.METAINFO['classes'])
