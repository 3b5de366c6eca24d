"""Differentially private training: clipped and noised gradients, Poisson batches, privacy accounts."""
