"""What is said where MMPretrain is not installed, or too old."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError

import pytest

from mmsnnet.models import heads
from mmsnnet.models.host.head_check import check_channels
from tests.builders import tiny_backbone
from tests.segmentors import build_segmentor, setr_head


def test_a_missing_mmpretrain_is_told_in_one_line(monkeypatch):
    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(heads, 'version', missing)
    with pytest.raises(ImportError, match=r'needs MMPretrain.*mmsnnet\[cls\]') as raised:
        heads.build_stitched_cls_head(num_classes=3, in_channels=dict(S=8))
    assert '\n' not in str(raised.value)


def test_an_old_mmpretrain_is_told_in_one_line(monkeypatch):
    monkeypatch.setattr(heads, 'version', lambda name: '1.1.1')
    with pytest.raises(ImportError, match=r'1\.2 or newer; 1\.1\.1 is installed'):
        heads.build_stitched_cls_head(num_classes=3, in_channels=dict(S=8))


def test_heads_of_segmentors_are_refused_where_nothing_is_lifted():
    model = build_segmentor(setr_head())
    model.backbone = tiny_backbone(out_indices=11, lift_taps=False)
    with pytest.raises(ValueError, match='EncoderDecoder reads maps of constant channels'):
        check_channels(model)
