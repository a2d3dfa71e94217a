"""Hooks and loops of training and evaluation."""
