"""Common networks, each a `serial` of layers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import jax

from jaxnn.checks import require_positive_int
from jaxnn.initializers import Initializer, he_normal, lecun_normal, zeros
from jaxnn.layers import BatchNorm, Conv, Dense, DepthwiseConv, Dropout, Flatten, Identity, Layer, MaxPool, Relu
from jaxnn.models.combinators import serial
from jaxnn.ops.conv import Padding
from jaxnn.types import Key, Params, State


def linear(features: int) -> Layer:
    """A linear model on flattened inputs: y = w'x + b; with softmax cross-entropy, multinomial logistic regression.

    Args:
        features: number of outputs, one per class.

    Example:
        >>> params, state = linear(10).init(jax.random.key(0), (28, 28, 1))
        >>> params[1]["w"].shape
        (784, 10)
    """
    return serial(Flatten, Dense(features, w_init=lecun_normal))


def mlp(
    sizes: Sequence[int],
    *,
    activation: Layer = Relu,
    dropout: float = 0.0,
    input_dropout: float = 0.0,
    w_init: Initializer = he_normal,
) -> Layer:
    """A multi-layer perceptron on flattened inputs: dense layers with activations between them, none after the last.

    Args:
        sizes: units of each layer, the input's first: [784, 512, 10]. `init` checks the first against the example.
        activation: the layer between dense layers.
        dropout: fraction of each hidden layer's outputs dropped in training.
        input_dropout: fraction of the inputs dropped in training.
        w_init: initializer of every weight matrix.

    Example:
        >>> from jaxnn import tree
        >>> params, state = mlp([3, 4, 2]).init(jax.random.key(0), (3,))
        >>> tree.size(params)
        26
    """
    if not hasattr(sizes, "__len__") or len(sizes) < 2:
        raise ValueError(f"mlp: sizes must name the input and at least one layer, such as [784, 512, 10], got {sizes}.")
    for size in sizes:
        require_positive_int("mlp", "each of sizes", size)
    parts = [_flatten_to(sizes[0]), *_dropout(input_dropout)]
    for hidden in sizes[1:-1]:
        parts += [Dense(hidden, w_init=w_init), activation, *_dropout(dropout)]
    return serial(*parts, Dense(sizes[-1], w_init=w_init))


def cnn(
    channels: Sequence[int] = (32, 64),
    hidden: Sequence[int] = (128,),
    classes: int = 10,
    *,
    window: int = 3,
    convolutions: int = 1,
    padding: Padding = "VALID",
    batch_norm: bool = False,
    dropout: float = 0.0,
) -> Layer:
    """A convolutional network on images (H, W, C): stages of convolution, 2x2 max-pool and ReLU, then dense layers.

    Pooling comes before normalization and ReLU, which then act on a quarter of the values. ReLU is monotone, so without
    batch normalization the result is the same.

    With the defaults on MNIST: conv 3x3x32 - pool - conv 3x3x64 - pool - dense 128 - dense 10, 225,034 parameters.

    Args:
        channels: output channels of each stage.
        hidden: units of the hidden dense layers.
        classes: number of outputs.
        window: side of the square kernels (stride 1).
        convolutions: number per stage; the pool follows the last.
        padding: of the convolutions: "VALID", "SAME" or (low, high) pairs.
        batch_norm: whether to normalize after each convolution (or its pool), which then has no bias.
        dropout: fraction of each dense layer's inputs dropped in training.

    Example:
        >>> from jaxnn import tree
        >>> params, state = cnn().init(jax.random.key(0), (28, 28, 1))
        >>> tree.size(params)
        225034
    """
    require_positive_int("cnn", "convolutions", convolutions)
    parts: list[Layer] = [_images_only()]
    for features in channels:
        for i in range(convolutions):
            parts.append(Conv(features, window, padding=padding, b_init=None if batch_norm else zeros))
            parts += [MaxPool(2)] if i == convolutions - 1 else []
            parts += [BatchNorm(), Relu] if batch_norm else [Relu]
    parts.append(Flatten)
    for units in hidden:
        parts += [*_dropout(dropout), Dense(units), Relu]
    return serial(*parts, *_dropout(dropout), Dense(classes))


def separable_conv(
    features: int,
    window: int | Sequence[int],
    *,
    multiplier: int = 1,
    stride: int | Sequence[int] = 1,
    padding: Padding = "VALID",
    dilation: int | Sequence[int] = 1,
    w_init: Initializer = he_normal,
    b_init: Initializer | None = zeros,
) -> Layer:
    """A depthwise convolution, each channel with a window of its own, then a dense layer across the channels.

    Of a full convolution's C_in K C_out weights it has C_in multiplier (K + C_out), K the positions of the window.

    Args:
        features: C_out.
        window, stride, padding, dilation: of the depthwise convolution, over one to three axes or more, as for `Conv`.
        multiplier: channels between per input channel.
        w_init, b_init: initializers of both kernels, and of the last bias; the depthwise part has none.

    Reference: Chollet, F. (2017). Xception: deep learning with depthwise separable convolutions, section 2.

    Example:
        >>> net = separable_conv(8, 3, padding="SAME")
        >>> params, state = net.init(jax.random.key(0), (28, 28, 16))
        >>> jax.tree.map(jax.numpy.shape, params)
        ({'w': (3, 3, 1, 16)}, {'b': (8,), 'w': (16, 8)})
    """
    each = DepthwiseConv(
        window, multiplier=multiplier, stride=stride, padding=padding, dilation=dilation, w_init=w_init, b_init=None
    )
    return serial(each, Dense(features, w_init=w_init, b_init=b_init))


def _dropout(rate: float) -> list[Layer]:
    """A dropout layer, or none at rate 0."""
    return [Dropout(rate)] if rate else []


def _flatten_to(size: int) -> Layer:
    """Flatten that checks, at init, that an example has `size` entries."""

    def init(key: Key, example: jax.ShapeDtypeStruct) -> tuple[Params, State]:
        entries = math.prod(example.shape)
        if entries != size:
            raise ValueError(
                f"mlp: sizes[0] is {size}, but one example has {entries} entries (shape {example.shape}). "
                f"Make the first size {entries}, or pass init the shape of ONE example, without the batch axis."
            )
        return (), ()

    return dataclasses.replace(Flatten, init=init)


def _images_only() -> Layer:
    """The identity that checks, at init, that an example is an image (H, W, C)."""

    def init(key: Key, example: jax.ShapeDtypeStruct) -> tuple[Params, State]:
        if len(example.shape) != 3:
            raise ValueError(
                f"cnn: an example must be an image (H, W, C), got shape {example.shape}. Grey images need a channel "
                "axis: x[..., None]. For other numbers of axes compose Conv and MaxPool with serial."
            )
        return (), ()

    return dataclasses.replace(Identity, init=init)
