"""Nearest points of convex sets."""

from jaxnn.projections.simplex import nearest_in_simplex

__all__ = ["nearest_in_simplex"]
