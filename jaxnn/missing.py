"""Suggestions for a missing name: its new name, the nearest name, the module that has it, our name for another
library's.

The names of other modules are read from their sources, so a misspelt name imports nothing.
"""

from __future__ import annotations

import ast
import difflib
import functools
import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Any

RENAMED = MappingProxyType(
    {
        "per_example.add_noise": ("per_example.add_gaussian_noise", "0.2"),
        "per_example.no_noise": ("per_example.NoiseScale.zero", "0.2"),
    }
)
"""Removed public name -> (its replacement, the version that removed it)."""

PEERS = "an equinox.nn or flax.linen layer inside a loss of your own"

FOREIGN = MappingProxyType(
    {
        "layers.Dense": "Linear, LazyLinear, DenseGeneral, Affine",
        "layers.Conv": "Conv1d, Conv2d, Conv3d, Conv1D, Conv2D, Conv3D, ConvND, LazyConv2d",
        "layers.DepthwiseConv": "DepthwiseConv2D, SeparableConv2D, DepthwiseConv1D",
        "layers.MaxPool": "MaxPool1d, MaxPool2d, MaxPool3d, MaxPooling2D, max_pool, max_pool2d",
        "layers.AveragePool": "AvgPool, AvgPool1d, AvgPool2d, AvgPool3d, AveragePooling2D, avg_pool, avg_pool2d",
        "layers.GlobalAveragePool": "AdaptiveAvgPool1d, AdaptiveAvgPool2d, GlobalAveragePooling2D",
        "layers.GlobalMaxPool": "AdaptiveMaxPool1d, AdaptiveMaxPool2d, GlobalMaxPooling2D",
        "layers.BatchNorm": "BatchNorm1d, BatchNorm2d, BatchNorm3d, BatchNormalization, SyncBatchNorm",
        "layers.LayerNorm": "LayerNormalization",
        "layers.GroupNorm": "InstanceNorm, InstanceNorm1d, InstanceNorm2d, GroupNormalization",
        "layers.Embedding": "Embed, EmbeddingBag, embed",
        "layers.Dropout": "Dropout1d, Dropout2d, AlphaDropout",
        "layers.Silu": "SiLU",
        "layers.PRelu": "PReLU, prelu, ParametricRelu",
        "layers.HardTanh": "Hardtanh, hard_tanh",
        "layers.Flatten": "Ravel",
        "layers.Activation": "Lambda",
        "layers.stateless": "module, Module",
        "models.serial": "Sequential, stax_serial",
        "models.parallel": "Parallel, FanOut",
        "models.residual": "Residual, ResidualBlock",
        "models.mlp": "MLP",
        "models.summary": "tabulate, torchinfo",
        "activations.silu": "swish",
        "activations.hard_tanh": "hardtanh",
        "losses.softmax_cross_entropy": "CrossEntropyLoss, NLLLoss, nll_loss, sparse_categorical_crossentropy, "
        "categorical_crossentropy, CategoricalCrossentropy, softmax_cross_entropy_loss, multiclass_logistic_loss",
        "losses.sigmoid_binary_cross_entropy": "BCEWithLogitsLoss, binary_cross_entropy_with_logits, "
        "sigmoid_cross_entropy, binary_logistic_loss, MultiLabelSoftMarginLoss",
        "losses.binary_cross_entropy": "BCELoss, BCE, binary_crossentropy, BinaryCrossentropy",
        "losses.mse": "MSELoss, mean_squared_error, MeanSquaredError",
        "losses.sum_squared_error": "SSE, sse, sum_of_squares",
        "losses.euclidean_error": "norm_error, l2_norm, L2Norm, euclidean_distance",
        "losses.absolute_error": "L1Loss, l1_loss, mae, mean_absolute_error, MeanAbsoluteError",
        "losses.huber": "SmoothL1Loss, smooth_l1_loss, HuberLoss, Huber",
        "losses.kl_divergence": "KLDivLoss, kl_div, kl_loss, KLDivergence",
        "losses.cosine_distance": "CosineEmbeddingLoss, cosine_embedding_loss, cosine_loss, CosineSimilarity",
        "losses.ctc_loss": "CTCLoss, ctc",
        "losses.triplet_margin_loss": "TripletMarginLoss, triplet_loss",
        "losses.gaussian_nll": "GaussianNLLLoss, gaussian_nll_loss",
        "losses.multiclass_hinge": "MultiMarginLoss, multi_margin_loss",
        "losses.logistic": "SoftMarginLoss, soft_margin_loss, logistic_loss",
        "losses.sigmoid_focal_loss": "FocalLoss, focal_loss, BinaryFocalCrossentropy",
        "losses.dice_loss": "DiceLoss, Dice",
        "losses.ntxent": "NTXentLoss, info_nce",
        "optim.sgd": "SGD, ASGD, momentum, GradientDescent, noisy_gradient_descent",
        "optim.sgd(nesterov=True)": "nesterov, nag",
        "optim.adam": "SparseAdam",
        "optim.reduce_on_plateau": "ReduceLROnPlateau",
        "optim.clip_by_global_norm": "clip_grad_norm_, clip_grad_norm, clip_grads, global_norm_clip",
        "optim.clip": "clip_grad_value_, clip_grad_value",
        "optim.add_decayed_weights": "additive_weight_decay, weight_decay",
        "optim.average_params": "AveragedModel, swa, polyak_averaging, ExponentialMovingAverage, SWALR",
        "optim.accumulate": "gradient_accumulation, multi_steps",
        "optim.partition": "param_groups",
        "optim.tree_map_params": "map_params",
        "optim.AdagradState": "ScaleByRssState",
        "optim.RMSpropState": "ScaleByRmsState, ScaleByRStdDevState",
        "optim.PartitionState": "MultiTransformState",
        "optim.EmptyState": "AdaptiveGradClipState, ClipState, ClipByGlobalNormState, ScaleState, "
        "ScaleByTrustRatioState, NonNegativeParamsState, IdentityState",
        "backprop.value_and_grad": "grad, gradient, gradients, backward_pass",
        "tree.norm": "tree_l2_norm, l2_norm",
        "train.make_step": "train_step, apply_gradients, backward, zero_grad, filter_value_and_grad",
        "train.fit": "Trainer, Estimator",
        "interchange.from_torch": "load_state_dict, load_torch, from_pytorch",
        "interchange.from_linen": "from_flax",
        "interchange.save_safetensors": "save_file",
        "interchange.load_safetensors": "load_file",
        "train.precision": "autocast, mixed_precision, MixedPrecision",
        "optim.dynamic_loss_scale": "DynamicLossScale, GradScaler, DynamicScale, loss_scaling",
        "train.TrainState": "OptimizerState",
        "per_example.clipped_grad": "clip_and_accumulate, GradSampleModule, clipped_grads",
        "data.make_dataset": "DataLoader, TensorDataset",
        "schedules.piecewise_constant_schedule": "StepLR, MultiStepLR, step_lr",
        "schedules.cosine_decay_schedule": "CosineAnnealingLR, cosine_annealing, CosineDecay",
        "schedules.sgdr_schedule": "CosineAnnealingWarmRestarts",
        "schedules.exponential_decay": "ExponentialLR, ExponentialDecay",
        "schedules.linear_schedule": "LinearLR",
        "schedules.constant_schedule": "ConstantLR, constant",
        "schedules.polynomial_schedule": "PolynomialLR, polynomial_decay",
        "schedules.cosine_onecycle_schedule": "OneCycleLR",
        "initializers.glorot_uniform": "xavier_uniform_, xavier_uniform, GlorotUniform",
        "initializers.glorot_normal": "xavier_normal_, xavier_normal, GlorotNormal",
        "initializers.he_uniform": "kaiming_uniform_, kaiming_uniform, HeUniform",
        "initializers.he_normal": "kaiming_normal_, kaiming_normal, HeNormal",
        "initializers.orthogonal": "orthogonal_, delta_orthogonal",
        "initializers.truncated_normal": "trunc_normal_, TruncatedNormal",
        "initializers.zeros": "zeros_, zeros_init, Zeros",
        "initializers.constant": "constant_, ones, ones_, Constant",
        "initializers.normal": "normal_, RandomNormal",
        "initializers.uniform": "uniform_, RandomUniform",
        "layers.RNN": "RNNCell, SimpleRNN, SimpleCell, VanillaRNN",
        "layers.LSTM": "LSTMCell, OptimizedLSTMCell",
        "layers.GRU": "GRUCell",
        "layers.LinearRecurrence": "MinGRU, minGRU, LRU, RGLRU, GILR",
        "models.bidirectional": "Bidirectional, BiLSTM, BiRNN",
        "models.recurrent": "DeepRNN, StackedRNNCells, RNNModel",
        "layers": "nn, linen, nnx, modules",
        "optim": "optimizers, optimizer, optax, solvers",
        "losses": "functional, loss",
        "tree": "tree_utils, treemath, pytree",
        "data": "datasets, utils_data",
        "per_example": "opacus, privacy",
        "train": "training",
        "initializers": "init, initializer",
        "activations": "activation, functions",
        "schedules": "lr_scheduler, schedulers",
        "metrics": "metric",
        "jax.tree.map": "tree_map, tree_multimap",
        "jax.jvp(jax.grad(f), (x,), (v,))[1] (jaxnn has no Hessian-vector products by name)": "hvp",
        "jax.hessian (jaxnn has no second_order)": "second_order",
        "optim.hutchinson_estimator_diag_hessian": "hessian_diag",
        "per_example.second_moment": "fisher_diag",
        "scipy.optimize.linear_sum_assignment (jaxnn has no assignment)": "assignment, hungarian_algorithm, "
        "base_hungarian_algorithm",
        "jaxnn.optim, which has all names of optax.contrib and optax.transforms": "contrib, transforms",
        f"{PEERS} (jaxnn has no convolutional recurrent layers)": "ConvLSTM, ConvLSTM2D, ConvLSTMCell",
        "layers.Attention": "MultiheadAttention, MultiHeadAttention, SelfAttention, MultiHeadDotProductAttention",
        "models.transformer": "Transformer, TransformerEncoder, TransformerEncoderLayer, TransformerDecoder",
        "ops.attention": "scaled_dot_product_attention, dot_product_attention",
        "layers.ConvTranspose": "ConvTranspose1d, ConvTranspose2d, ConvTranspose3d, Conv2DTranspose, ConvTransposeND",
    }
)
"""Our name -> the names, comma-separated, of the same thing in torch, flax, haiku, equinox, keras and optax."""


def suggest(module: str) -> Callable[[str], Any]:
    """The `__getattr__` of a module, from its `__name__`: raises AttributeError with a suggestion.

    Example:
        >>> suggest("jaxnn.layers")("Linear")
        Traceback (most recent call last):
        AttributeError: module 'jaxnn.layers' has no attribute 'Linear'. Did you mean jaxnn.layers.Dense?
    """

    def __getattr__(name: str) -> Any:
        raise AttributeError(message(module, name))

    return __getattr__


def message(module: str, name: str) -> str:
    """The text of the AttributeError; names with a leading underscore are looked up by tools and get no suggestion.

    Example:
        >>> message("jaxnn.optim", "Adam")
        "module 'jaxnn.optim' has no attribute 'Adam'. Did you mean jaxnn.optim.adam?"
        >>> message("jaxnn.per_example", "no_noise").partition(": ")[2]
        'it was renamed to jaxnn.per_example.NoiseScale.zero in 0.2.'
        >>> message("jaxnn.layers", "__wrapped__")
        "module 'jaxnn.layers' has no attribute '__wrapped__'"
    """
    plain = f"module {module!r} has no attribute {name!r}"
    if name.startswith("_"):
        return plain
    if renamed := RENAMED.get(f"{module.removeprefix('jaxnn.')}.{name}"):
        return f"{plain}: it was renamed to jaxnn.{renamed[0]} in {renamed[1]}."
    meant = suggestions(module, name)
    *others, last = ["", *meant[:3]]
    before = ", ".join(other for other in others if other)
    return f"{plain}. Did you mean {before}{' or ' if before else ''}{last}?" if last else f"{plain}."


def suggestions(module: str, name: str) -> list[str]:
    """Names of the first kind that has any: equal but for case and _, in `FOREIGN`, of another module, spelt alike.

    Example:
        >>> suggestions("jaxnn.layers", "adamw"), suggestions("jaxnn", "optmi")
        (['jaxnn.optim.adamw'], ['jaxnn.optim'])
    """
    here = module.rpartition("jaxnn")[2].lstrip(".").partition(".")[0]
    every = public_names()
    own = tuple(every) if not here else every.get(here, ())
    prefix = f"jaxnn.{here}." if here else "jaxnn."
    key = _key(name)
    if same := [prefix + other for other in own if _key(other) == key]:
        return same
    if known := _foreign().get(key, []):
        at_home = [k for k in known if k.startswith(prefix)]
        return at_home or known
    for spelling in dict.fromkeys((key, _bare(key))):
        if there := [f"jaxnn.{room}" for room in every if _key(room) == spelling]:
            return there
        if there := [f"jaxnn.{room}.{n}" for room, names in every.items() for n in names if _key(n) == spelling]:
            return there
    if alike := _alike(name, own, 0.7):
        return [prefix + other for other in alike]
    return [f"jaxnn.{room}.{other}" for room, names in every.items() for other in _alike(name, names, 0.85)]


@functools.cache
def public_names() -> dict[str, tuple[str, ...]]:
    """The public names of every module of `ROOMS`, read from its source without importing it."""
    from jaxnn import ROOMS

    return {room: _names_in(_source(f"jaxnn.{room}")) for room in ROOMS}


def _source(module: str) -> str:
    """The source of a module, "" where there is none."""
    spec = importlib.util.find_spec(module)
    get = getattr(spec.loader, "get_source", None) if spec else None
    try:
        # A loader need not know sources: pytest's, for modules named on its command line, does not.
        return (get(module) or "") if get else Path(spec.origin if spec and spec.origin else "").read_text("utf-8")
    except (ImportError, OSError):
        return ""


def _names_in(source: str) -> tuple[str, ...]:
    body = ast.parse(source).body
    found: list[str] = []
    for node in body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        names = [t.id for t in targets if isinstance(t, ast.Name)]
        if {"__all__", "MODULES"} & set(names) and isinstance(node, ast.Assign | ast.AnnAssign):
            literal = node.value
            if isinstance(literal, ast.List | ast.Tuple):
                return tuple(e.value for e in literal.elts if isinstance(e, ast.Constant) and isinstance(e.value, str))
        found += names
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.append(node.name)
        if isinstance(node, ast.ImportFrom) and str(node.module).count("."):
            found += [alias.asname or alias.name for alias in node.names if str(node.module).startswith("jaxnn.")]
    return tuple(n for n in found if not n.startswith("_"))


@functools.cache
def _foreign() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for ours, theirs in FOREIGN.items():
        for name in theirs.split(", "):
            room = ours.partition(".")[0]
            meant = f"jaxnn.{ours}" if room.isidentifier() and room not in ("jax", "jaxnn") else ours
            if meant not in found.setdefault(_key(name), []):
                found[_key(name)].append(meant)
    return found


def _bare(key: str) -> str:
    """A key without optax's prefix: `tree_add` is our `tree.add`, and `ScaleByAdamState` our `AdamState`."""
    return key.removeprefix("tree").removeprefix("scaleby" if key.endswith("state") else "")


def _key(name: str) -> str:
    return name.lower().replace("_", "")


def _alike(name: str, known: tuple[str, ...], cutoff: float) -> list[str]:
    keys = {_key(k): k for k in reversed(known)}
    close = difflib.get_close_matches(_key(name), keys, n=2, cutoff=cutoff)
    return [keys[k] for k in close]
