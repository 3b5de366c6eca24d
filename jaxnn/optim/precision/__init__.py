"""Low-precision training: master weights, compensated sums, stochastic rounding, 8-bit states."""
