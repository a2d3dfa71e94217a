"""Costs of whole models, sweeps over stitches, their records and reports."""
