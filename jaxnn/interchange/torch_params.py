"""Parameters of PyTorch's modules as those of our networks, and back. PyTorch itself is not imported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxnn.interchange.conversion import names_in, on_host, read, require_shapes, shapes_of, write
from jaxnn.interchange.layout import torch_orders
from jaxnn.interchange.matching import Names, Unit
from jaxnn.interchange.torch_forms import TORCH
from jaxnn.layers.base import Example, Layer
from jaxnn.types import Params, State


def from_torch(
    net: Layer, state_dict: Mapping[str, Any], example: Example, *, names: Names | None = None
) -> tuple[Params, State]:
    """Parameters and state of a network from the `state_dict` of a PyTorch module that computes the same.

    Layouts are turned: dense weights (out, in) -> (in, out), kernels (out, in, *window) -> (*window, in, out), packed
    projections of attention taken apart, the two biases of recurrent layers added. The features that `Flatten` makes of
    an image come in another order there, from (C, H, W), and are permuted in the layers after it; so are those that
    `Reshape` makes an image of, in the layers before it. Examples (T, D) are signals with channels first where a
    convolution, a pooling or a batch norm stands next to it, else sequences with features last, as in PyTorch.

    Only arrays are converted. The two networks must agree in what is no array: eps of norms (torch: 1e-5 of layer,
    group and batch norm, as here; of `nn.RMSNorm` by default that of the dtype, so pass `RMSNorm(eps=...)`), GELU
    (`nn.GELU()` is `Gelu`, exact), padding (torch's `padding=1` is ((1, 1), (1, 1)) here), strides, the scale of
    attention, and rotary encodings (here of halves, i and i + D/2). The momentum m of `nn.BatchNorm` is 1 - m here; its
    running variance is the unbiased one in both.

    Args:
        net: the network.
        state_dict: tensors or arrays by name, as `module.state_dict()` returns it, or as `load_safetensors` reads it.
        example: shape of ONE example, as for `net.init`; for tokens a `jax.ShapeDtypeStruct`.
        names: path of our layer, such as "2/0/1", -> name of the module, such as "encoder.norm1"; of recurrent layers
            in one module "lstm.*_l1_reverse"; a tuple where ours is several modules (attention as separate projections:
            those of queries, keys, values, outputs, and the norms of queries and keys; `GatedDense`: w, v). Layers not
            named are matched in the order of the entries, each with the next module of its names and shapes: modules of
            one shape must be made in the order in which they are applied. `torch_names` returns the result.

    Returns:
        (params, state), JAX arrays that share no memory with the tensors, in their dtypes (float64 becomes float32
        unless jax_enable_x64 is set; running statistics are float32 at least).

    Raises:
        TypeError: an entry is not an array; a sparse, quantized, nested or meta tensor; integers as a parameter.
        ValueError: a layer or a module that is left over, a missing entry, a wrong shape, a layer that PyTorch has not,
            modules of one shape whose order is not known (names sorted as in files tell it by numbers alone).

    Example:
        >>> from jaxnn.models import mlp
        >>> weights = {"1.weight": np.ones((4, 3)), "1.bias": np.ones(4)}  # model.state_dict()
        >>> weights |= {"3.weight": np.ones((2, 4)), "3.bias": np.ones(2)}
        >>> params, state = from_torch(mlp([3, 4, 2]), weights, (3,))
        >>> params[1]["w"].shape
        (3, 4)
    """
    shapes = shapes_of("from_torch", net, example)
    orders = torch_orders("from_torch", net, *shapes, example)
    return read("from_torch", TORCH, net, shapes, on_host("from_torch", state_dict), names, orders)


def to_torch(
    net: Layer, params: Params, state: State, example: Example, *, names: Names | None = None
) -> dict[str, np.ndarray[Any, Any]]:
    """The `state_dict` of a PyTorch module from the parameters and state of a network; the inverse of `from_torch`.

    `model.load_state_dict({name: torch.from_numpy(x) for name, x in arrays.items()})` takes it, or, for any dtype,
    `save_safetensors(path, arrays)` and `safetensors.torch.load_file(path)`.

    Args:
        net, params, state: the network, and what its `init` or training returned.
        example, names: as for `from_torch`. Layers not named have their paths as names, "2.0.weight": those of an
            `nn.Sequential` whose parts stand at the same places. For another module pass
            `torch_names(net, model.state_dict(), example)`.

    Returns:
        NumPy arrays by name, each with memory of its own. Where PyTorch has two biases that are added, the second
        is 0; `num_batches_tracked` is 0.

    Raises:
        ValueError: parameters or state of another network, a layer that PyTorch has not, names of layers that do not
            exist, two layers with one name.

    Example:
        >>> import jax
        >>> from jaxnn.models import mlp
        >>> net = mlp([3, 4, 2])
        >>> list(to_torch(net, *net.init(jax.random.key(0), (3,)), (3,)))
        ['1.weight', '1.bias', '3.weight', '3.bias']
    """
    shapes = shapes_of("to_torch", net, example)
    require_shapes("to_torch", (params, state), shapes)
    orders = torch_orders("to_torch", net, *shapes, example)
    return write("to_torch", TORCH, net, (params, state), names, orders)


def torch_names(
    net: Layer, state_dict: Mapping[str, Any], example: Example, *, names: Names | None = None
) -> dict[str, Unit]:
    """Path of each layer -> name of its module, as `from_torch` matches them: to check, and for `to_torch`.

    Args, Raises: as for `from_torch`.

    Example:
        >>> from jaxnn.layers import Dense
        >>> torch_names(Dense(2), {"head.weight": np.ones((2, 3)), "head.bias": np.ones(2)}, (3,))
        {'': 'head'}
    """
    shapes = shapes_of("torch_names", net, example)
    return names_in("torch_names", TORCH, net, shapes, on_host("torch_names", state_dict), names)
