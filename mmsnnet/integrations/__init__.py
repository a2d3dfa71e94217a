"""Stitched backbones in other libraries; each module needs its library, nothing imports it."""
