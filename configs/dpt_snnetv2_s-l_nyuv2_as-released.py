# dpt_snnetv2_s-l_nyuv2.py with the learning rates that the authors' released code ends up with:
# one peak for all parameters, because OneCycle of mmcv 1.x overrides the backbone's factor of 0.1.
_base_ = ['./dpt_snnetv2_s-l_nyuv2.py']

one_cycle = dict(_base_.param_scheduler[0], type='OneCycleLR', eta_max=2e-5)
param_scheduler = [one_cycle, *_base_.param_scheduler[1:]]
