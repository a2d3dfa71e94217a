# upernet_snnetv2_ade20k.py under the name that goes with those of the other anchors and data.
_base_ = ['./upernet_snnetv2_ade20k.py']
