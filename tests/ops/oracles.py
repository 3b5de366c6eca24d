"""The linear maps again, in float64 NumPy, one window or kernel position at a time, straight from their equations."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np


def pads_of(padding, sizes, window, stride, dilation) -> list[tuple[int, int]]:
    """(low, high) for each axis; "SAME" makes ceil(size / stride) outputs, the odd one at the end."""
    if padding == "VALID":
        return [(0, 0)] * len(sizes)
    if padding != "SAME":
        return list(padding)
    totals = [
        max((int(np.ceil(n / s)) - 1) * s + (k - 1) * d + 1 - n, 0)
        for n, k, s, d in zip(sizes, window, stride, dilation, strict=True)
    ]
    return [(t // 2, t - t // 2) for t in totals]


def conv(x, w, *, stride, padding, dilation, groups):
    """y[n, o, c] = sum over k and i of x[n, o s + k d - p, i] w[k, i, c]."""
    window, dims = w.shape[:-2], x.ndim - 2
    pads = pads_of(padding, x.shape[1:-1], window, stride, dilation)
    padded = np.pad(x, [(0, 0), *pads, (0, 0)])
    out = [
        (n - (k - 1) * d - 1) // s + 1 for n, k, s, d in zip(padded.shape[1:-1], window, stride, dilation, strict=True)
    ]
    y = np.zeros((x.shape[0], *out, w.shape[-1]))
    c_in, c_out = w.shape[-2], w.shape[-1] // groups
    for k in itertools.product(*map(range, window)):
        start = [k[a] * dilation[a] for a in range(dims)]
        spatial = tuple(slice(b, b + (o - 1) * s + 1, s) for b, o, s in zip(start, out, stride, strict=True))
        entry = padded[(slice(None), *spatial)]
        for g in range(groups):
            outs = slice(g * c_out, (g + 1) * c_out)
            y[..., outs] += entry[..., g * c_in : (g + 1) * c_in] @ w[k][:, outs]
    return y


def windows(sizes, window, stride, padding) -> Iterator[tuple[tuple[int, ...], list[tuple[int, ...]]]]:
    """Each output position with the input positions of its window, in row-major order, padding left out."""
    pads = pads_of(padding, sizes, window, stride, (1,) * len(sizes))
    counts = [(n + sum(p) - k) // s + 1 for n, p, k, s in zip(sizes, pads, window, stride, strict=True)]
    for o in itertools.product(*map(range, counts)):
        axes = [
            [i for i in range(b * s - p[0], b * s - p[0] + k) if 0 <= i < n]
            for b, s, p, k, n in zip(o, stride, pads, window, sizes, strict=True)
        ]
        yield o, list(itertools.product(*axes))


def pooled_shape(x, window, stride, padding) -> tuple[int, ...]:
    last = list(windows(x.shape[1:-1], window, stride, padding))[-1][0]
    return (x.shape[0], *(i + 1 for i in last), x.shape[-1])


def max_pool(x, dy, *, window, stride, padding):
    """y, and dx with each error at the first maximum of its window (np.argmax takes the first, and the first NaN)."""
    y, dx = np.zeros(dy.shape), np.zeros(x.shape)
    for o, entries in windows(x.shape[1:-1], window, stride, padding):
        for n, c in itertools.product(range(x.shape[0]), range(x.shape[-1])):
            values = np.array([x[(n, *m, c)] for m in entries])
            first = int(np.argmax(values))
            y[(n, *o, c)] = values[first]
            dx[(n, *entries[first], c)] += dy[(n, *o, c)]
    return y, dx


def average_pool(x, dy, *, window, stride, padding, count_padding):
    """y, and dx with each error shared by its window."""
    y, dx = np.zeros(dy.shape), np.zeros(x.shape)
    for o, entries in windows(x.shape[1:-1], window, stride, padding):
        share = 1 / (np.prod(window) if count_padding else len(entries))
        for m in entries:
            y[(slice(None), *o)] += share * x[(slice(None), *m)]
            dx[(slice(None), *m)] += share * dy[(slice(None), *o)]
    return y, dx
