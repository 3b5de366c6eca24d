"""Optimizers for parameters and states of few bits: master weights, compensated and random rounding, 8-bit states."""
