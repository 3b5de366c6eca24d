"""Element-wise moments of per-example gradients."""

from __future__ import annotations

import jax.numpy as jnp

from jaxnn.checks import require_positive_int
from jaxnn.numerics import exact_einsum
from jaxnn.per_example.chunked import Chunked
from jaxnn.per_example.forms import Form, Pieces, forms, settled
from jaxnn.per_example.measures import deviations, squares
from jaxnn.per_example.outer import Outer
from jaxnn.per_example.placing import PARAMS, returns
from jaxnn.per_example.select import require_independent
from jaxnn.per_example.sums import tree_of, wide_means
from jaxnn.tape import Tape
from jaxnn.types import Array, PyTree


@returns(PARAMS)
def second_moment(tape: Tape) -> PyTree:
    """1/N sum_i g_i^2, element-wise, a pytree like `params`.

    For a weight matrix with T = 1 it is (a^2)' (delta^2) / N, one matrix product; for T > 1 gradients are materialized
    in chunks.

    Reference: Dangel, F., Kunstner, F. & Hennig, P. (2020). BackPACK: packing more into backprop, appendix A.1.

    Example:
        >>> from jaxnn.per_example.sample import sample_tape
        >>> second_moment(sample_tape())["b"]
        Array([2.5], dtype=float32)
    """
    require_independent("second_moment", tape, 1)
    pairs = zip(forms(tape), tape.leaves, strict=True)
    return tree_of(tape, [squares(settled(form), tape.examples).reshape(leaf.shape) for form, leaf in pairs])


@returns(PARAMS)
def variance(tape: Tape, ddof: int = 0) -> PyTree:
    """1/(N - ddof) sum_i (g_i - mean g)^2, a pytree like `params`, in two passes over chunks: never negative.

    Its error is that of rounding each g_i: in float32, with mean 1, standard deviation 1e-3 and N = 64, about 1e-5 of
    the variance, where the mean of squares minus the square of the mean has no correct digit.

    Args:
        tape: of N > ddof examples.
        ddof: 0 divides by N (so that one example has variance 0), 1 by N - 1 (unbiased).

    Raises:
        ValueError: N <= ddof.

    Reference: Chan, T. F., Golub, G. H. & LeVeque, R. J. (1983). Algorithms for computing the sample variance: analysis
        and recommendations, equation 1.1 (two passes).

    Example:
        >>> from jaxnn.per_example.sample import sample_tape
        >>> variance(sample_tape())["w"][:, 0]
        Array([6.25, 1.  ], dtype=float32)
    """
    ddof = require_positive_int("variance", "ddof", ddof, minimum=0)
    require_independent("variance", tape, ddof + 1)
    pairs = zip(forms(tape), tape.leaves, strict=True)
    return tree_of(tape, [deviations(settled(form), tape.examples - ddof).reshape(leaf.shape) for form, leaf in pairs])


@returns(PARAMS)
def variance_centred(tape: Tape, ddof: int = 0) -> PyTree:
    """`variance` by matrix products of centred factors, for weights used at one position per example (T = 1).

    Centred factors are ac = a - mean a and dc = delta - mean delta, with C = ac' dc / N. Powers are element-wise, ' is
    the transpose. The variance is mean((mean(delta) ac + mean(a) dc + ac dc)^2) - C^2:

        [(ac^2)' dc^2 + 2 mean(delta) (ac^2)' dc + 2 mean(a) ac' dc^2] / N
            + mean(ac^2) mean(delta)^2 + mean(a)^2 mean(dc^2) + 2 mean(a) mean(delta) C - C^2

    computed by two products, since the bracket is (ac^2 + 2 mean(a) ac)' (dc^2 + 2 mean(delta) dc) minus
    4 N mean(a) mean(delta) C.

    Large means of a and delta cause no cancellation. But where a and delta vary TOGETHER and their product does not, as
    with random signs in common, C^2 cancels nearly all of the other terms: the result is rounding error, and may be
    negative. Use `variance` there. Parameters other than weight matrices are computed in two passes.

    Args:
        tape: of N > ddof examples.
        ddof: 0 divides by N, 1 by N - 1 (unbiased).

    Raises:
        ValueError: N <= ddof; a product or convolution with T > 1, which has no such form.

    Reference: Chan, T. F., Golub, G. H. & LeVeque, R. J. (1983). Algorithms for computing the sample variance: analysis
        and recommendations, section 3 (shifted data).

    Example:
        >>> from jaxnn.per_example.sample import sample_tape
        >>> variance_centred(sample_tape())["w"][:, 0]
        Array([6.25, 1.  ], dtype=float32)
    """
    ddof = require_positive_int("variance_centred", "ddof", ddof, minimum=0)
    require_independent("variance_centred", tape, ddof + 1)
    scale = tape.examples / (tape.examples - ddof)
    rows = zip(tape.paths, forms(tape), tape.leaves, strict=True)
    return tree_of(tape, [_centred(path, form).reshape(leaf.shape) * scale for path, form, leaf in rows])


def _centred(path: str, form: Form) -> Array:
    """The variance of one parameter, in the matrix form if its form is an `Outer`."""
    if isinstance(form, Pieces):
        return form.placed([_centred(path, part) for part in form.parts])
    if isinstance(form, Chunked):
        return form.put_together(lambda part: _centred(path, part))
    if not isinstance(form, Outer):
        return deviations(form, form.examples)
    if form.times > 1:
        raise ValueError(
            f"variance_centred: {path} is used at {form.times} positions of each example, and the squares of a "
            "sum do not factor. Use variance, or variance_centred(select(tape, ...)) for the layers with T = 1."
        )
    a, delta = (x[:, 0].astype(form.dtype) for x in (form.a, form.delta))  # (N, G, d), (N, G, p)
    mean_a, mean_delta = jnp.mean(a, axis=0, keepdims=True), jnp.mean(delta, axis=0, keepdims=True)
    ac, dc = a - mean_a, delta - mean_delta

    def mean_product(x: Array, y: Array) -> Array:
        return exact_einsum("ngd,ngp->gdp", x, y) / a.shape[0]

    def outer(x: Array, y: Array) -> Array:
        return x[0, :, :, None] * y[0, :, None, :]

    ac2, dc2, c = jnp.square(ac), jnp.square(dc), mean_product(ac, dc)
    return form.laid_out(
        mean_product(ac2 + 2 * mean_a * ac, dc2 + 2 * mean_delta * dc)
        + outer(jnp.mean(ac2, axis=0, keepdims=True), jnp.square(mean_delta))
        + outer(jnp.square(mean_a), jnp.mean(dc2, axis=0, keepdims=True))
        - c * (c + 2 * outer(mean_a, mean_delta))
    )


@returns(PARAMS)
def snr(tape: Tape, ddof: int = 0) -> PyTree:
    """(mean g)^2 / Var g, a pytree like `params`: signal-to-noise ratios. Infinite at variance 0; 0 for 0 / 0.

    Args:
        tape: of N > ddof examples.
        ddof: of the variance; 0 divides by N, 1 by N - 1.

    Raises:
        ValueError: N <= ddof.

    Reference: Liu, J., Bai, Y., Jiang, G., Chen, T. & Wang, H. (2020). Understanding why neural networks generalize
        well through GSNR of parameters, definition 1.

    Example:
        >>> from jaxnn.per_example.sample import sample_tape
        >>> snr(sample_tape())["b"]
        Array([9.], dtype=float32)
    """
    ddof = require_positive_int("snr", "ddof", ddof, minimum=0)
    require_independent("snr", tape, ddof + 1)
    signals = [jnp.square(m) for m in wide_means("snr", tape)]
    noises = tape.structure.flatten_up_to(variance(tape, ddof))
    return tree_of(tape, [signal_to_noise(s, v) for s, v in zip(signals, noises, strict=True)])


def signal_to_noise(signal: Array, noise: Array) -> Array:
    """signal / noise, infinite at noise 0; 0 for 0 / 0."""
    none = noise == 0
    limit = jnp.where(signal == 0, jnp.zeros_like(signal), jnp.full_like(signal, jnp.inf))
    return jnp.where(none, limit, signal / jnp.where(none, jnp.ones_like(noise), noise))
