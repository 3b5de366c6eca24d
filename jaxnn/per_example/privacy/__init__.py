"""Differentially private training: clipped and noised gradients, Poisson subsampling, privacy accounting."""
