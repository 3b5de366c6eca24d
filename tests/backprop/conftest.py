"""Settings of this folder's tests."""

from tests.backprop.checking import compiled_quickly

__all__ = ["compiled_quickly"]
