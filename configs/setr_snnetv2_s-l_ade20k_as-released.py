# setr_snnetv2_s-l_ade20k.py with the optimizer that the authors' released config runs: it sets
# head lr x 10 and weight decay 0 in a variable that MMEngine does not read.
_base_ = ['./setr_snnetv2_s-l_ade20k.py']

optim_wrapper = dict(optimizer=dict(weight_decay=5e-4), paramwise_cfg=dict(_delete_=True))
