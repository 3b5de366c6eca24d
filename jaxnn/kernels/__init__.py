"""Kernels for accelerators, each beside its reference in plain `jax.numpy`.

| function | what | kernel for | without |
|---|---|---|---|
| `product_norms_and_sum` | norms and weighted sum of N matrix products | NVIDIA Hopper | `..._reference` |

Off unless switched on, by `with kernels.use(True):`. A kernel is in a program where three things hold: it is switched
on, it takes the shapes (`takes`), and the program is lowered for the kernel's platform. Else the reference is.

None is for TPU: compiled for a TPU v5e, XLA fuses the products of 64 x 512 x 768 x 3072, their squares and weighted sum
into one kernel without temporaries, where for an H200 it stores the products, 576 MiB.
"""

from typing import TYPE_CHECKING

from jaxnn import missing
from jaxnn.kernels.product import product_norms_and_sum, product_norms_and_sum_reference, takes
from jaxnn.kernels.switch import use, used

__all__ = ["product_norms_and_sum", "product_norms_and_sum_reference", "takes", "use", "used"]

if not TYPE_CHECKING:  # type checkers know the names
    __getattr__ = missing.suggest(__name__)
