"""Optimizers, hand-written: optax's protocol, names, argument names, defaults and sign convention.

opt = optim.adam(1e-3)
opt_state = opt.init(params)
updates, opt_state = opt.update(grads, opt_state, params)
params = optim.apply_updates(params, updates)

| rules | kind |
|---|---|
| `sgd` (momentum, Nesterov), `nesterov_lookahead`, `sign_sgd`, `signum`, `lion`, `rprop` | gradient or its sign |
| `adagrad`, `adagrad_as_published`, `adadelta`, `rmsprop`, `sm3`, `adafactor`, `yogi` | scaled by squared gradients |
| `adam`, `adamw`, `adamax`, `adamaxw`, `nadam`, `nadamw`, `amsgrad`, `radam`, `adabelief`, `adan` | Adam, variants |
| `adopt`, `ademamix`, `simplified_ademamix`, `novograd`, `acprop`, `madgrad`, `optimistic_adam_v2` | Adam, variants |
| `lamb`, `lars`, `fromage` | layer-wise: steps proportional to the norm of the weights |
| `dog`, `dowg`, `prodigy`, `dadapt_adamw`, `cocob`, `mechanize`; `schedule_free` | no tuned rate; no schedule |
| `muon`, `muon_with_roles`, `shampoo`, `soap`, `galore` | matrices |
| `polyak_sgd`, `momo`, `momo_adam`, `reduce_on_plateau`: need `value` | steps from the loss |
| `lbfgs`, `scale_by_zoom_linesearch`, `scale_by_backtracking_linesearch`: need `value_fn`, ... | line search |
| `sophia`: needs `obj_fn`; `sam`: needs `grad_fn` in opaque mode | several gradients a step |
| `noisy_sgd`, `dpsgd`, `differentially_private_aggregate` | noise |

| combinators and parts | kind |
|---|---|
| `chain`, `named_chain`, `masked`, `partition`, `freeze`, `conditionally_transform`, `apply_if_finite` | selection |
| `clip`, `clip_by_global_norm`, `clip_by_block_rms`, `adaptive_grad_clip`, `centralize`, `zero_nans` | of gradients |
| `add_decayed_weights`, `scale_by_learning_rate`, `scale_by_schedule`, `trace`, `ema`, `scale_by_...` | rule parts |
| `accumulate`, `MultiSteps`, `lookahead`, `average_params`, `periodic_update` | over several steps |
| `master_weights`, `kahan`, `stochastic_rounding`, `quantized_state` | half-precision weights, 8-bit states |
| `dynamic_loss_scale` | float16 gradients: a scaled loss, overflows skipped |
| `inject_hyperparams`, `get_hyperparams`, `with_hyperparams`, `named_state`, `monitor`, `snapshot` | monitoring |
| `spec`, `build`, `describe`, `learning_rate` | what an optimizer is, from outside: its structure and its numbers |

What every factory shares:

- It returns an `Optimizer`. The state of a rule is one named tuple, e.g. `AdamState(count, mu, nu)` for `adam` and
  `scale_by_adam` (optax nests one tuple for each link of a chain; so does `lbfgs` here). Arguments that a rule does not
  describe are those of its `scale_by_...`.
- `learning_rate` and `weight_decay`: a number >= 0 (of any sign in `scale_by_learning_rate`, `add_decayed_weights`)
  or, annotated `ScalarOrSchedule`, a schedule of the step count (0 at the first update). A Python 0 as `weight_decay`
  leaves the term out of the program, except in `add_decayed_weights`, `dadapt_adamw`, `mechanize`, `momo`,
  `momo_adam` and `prodigy`. A mask (`mask`, `weight_decay_mask`) tells which parameters decay: a pytree of bools like
  the parameters or a prefix of it, a function of the parameters that returns one, or None for all.
- Arguments annotated `Scalar` or `ScalarOrSchedule` may be traced; others are static unless they say otherwise.
- `eps` keeps a denominator away from 0. Outside a root it bounds the step; inside (`eps_root`) it also keeps the
  derivative of the root finite, for meta-gradients. Where an equation has 0/0 := 0, eps = 0 is safe.
- A rule computes in the accumulation dtype, float32 for bfloat16 and float16. Updates have the dtypes of the
  parameters (without params, of the gradients); `identity`, `set_to_zero`, `monitor`, `snapshot` and line
  searches keep those of the updates that they receive, `stateless` those of its function; `master_weights` and
  `stochastic_rounding` return float32 for half precision. States keep their dtypes: moments are in the accumulation
  dtype unless `mu_dtype` or `accumulator_dtype` says otherwise (for complex parameters, in the complex dtype of that
  precision); second moments of complex parameters are real.
- Pass `params` to `update`: weight decay and rules whose equation contains the parameters need them. Wrappers pass
  extra arguments on; rules ignore those that they do not use. `train.make_step` passes `value`, `grad`, `value_fn`,
  `grad_fn` and `obj_fn`, and of a `train.per_example_vg` its `statistics`.
- ValueError, when the optimizer is made: a hyperparameter out of range, if known while tracing; an unknown option.
  At `update`: missing `params` or extra argument; another structure or shape than that of the parameters; a mask that
  is not a prefix of them.
- TypeError: parameters that are not floating, at the latest in `apply_updates`; an argument of the wrong type; a mask
  that does not hold bools; complex parameters in `adadelta`, `adopt`, `clip`, `cocob`, `dadapt_adamw`, `galore`,
  `hutchinson_estimator_diag_hessian`, `keep_params_nonnegative`, `madgrad`, `mechanize`, `momo`, `momo_adam`,
  `prodigy`, `rprop`, `scale_by_distance_over_gradients`, `shampoo`, `simplified_ademamix`, `sm3`, `soap`, `sophia`:
  wrap these in `split_real_and_imaginary`.
- `init`, eager or under `jax.jit`, places every array like its parameter; what is derived from an axis (factors of
  `shampoo` and `soap`, rows and columns of `adafactor`) is sharded like that axis. `update` runs on Auto and on
  Explicit meshes and inside `jax.shard_map`.

Not among optax's public names: `nesterov_lookahead`, `adagrad_as_published`, `shampoo`, `soap`, `scale_by_shampoo`,
`scale_by_soap`, `scale_by_sophia`, `muon_with_roles`, `orthogonalize_via_newton_schulz`, `accumulate`,
`average_params`, `averaged_params`, `dynamic_loss_scale`, `master_weights`, `kahan`, `stochastic_rounding`,
`quantized_state`, `quantize`, `dequantize`, `named_state`, `get_hyperparams`, `with_hyperparams`,
`sqrt_batch_size_rule`, `spec`, `build` and `describe`.
"""

from typing import TYPE_CHECKING

from jaxnn import missing
from jaxnn.microbatching import microbatch
from jaxnn.optim.base import (
    EmptyState,
    GradientTransformation,
    GradientTransformationExtraArgs,
    Optimizer,
    OptState,
    Transformation,
    TransformInitFn,
    TransformUpdateExtraArgsFn,
    TransformUpdateFn,
    Updates,
    apply_updates,
)
from jaxnn.optim.chain import chain, named_chain
from jaxnn.optim.descent import Mask as MaskOrFn
from jaxnn.optim.linesearch.backtracking import (
    BacktrackingLinesearchInfo,
    ScaleByBacktrackingLinesearchState,
    scale_by_backtracking_linesearch,
)
from jaxnn.optim.linesearch.lbfgs import ScaleByLBFGSState, lbfgs, scale_by_lbfgs
from jaxnn.optim.linesearch.linesearch import value_and_grad_from_state
from jaxnn.optim.linesearch.zoom import ScaleByZoomLinesearchState, ZoomLinesearchInfo, scale_by_zoom_linesearch
from jaxnn.optim.matrix.galore import GaLoreDimensionNumbers, GaLoreState, galore, scale_by_galore
from jaxnn.optim.matrix.matrix import matrix_inverse_pth_root, power_iteration
from jaxnn.optim.matrix.muon import MuonState, muon, scale_by_muon
from jaxnn.optim.matrix.muon_axes import MuonDimensionNumbers
from jaxnn.optim.matrix.muon_roles import muon_with_roles
from jaxnn.optim.matrix.newton_schulz import orthogonalize_via_newton_schulz
from jaxnn.optim.matrix.shampoo import ShampooState, scale_by_shampoo, shampoo
from jaxnn.optim.matrix.soap import SoapState, scale_by_soap, soap
from jaxnn.optim.moments import (
    bias_correction,
    safe_increment,
    safe_int32_increment,
    safe_norm,
    safe_root_mean_squares,
    update_infinity_moment,
    update_moment,
    update_moment_per_elem_norm,
)
from jaxnn.optim.nnls import nnls
from jaxnn.optim.precision.loss_scale import LossScaleState, dynamic_loss_scale
from jaxnn.optim.precision.precision import (
    KahanState,
    MasterWeightsState,
    StochasticRoundingState,
    kahan,
    master_weights,
    stochastic_rounding,
)
from jaxnn.optim.precision.quantized import QuantizedState, dequantize, quantize, quantized_state
from jaxnn.optim.rates import learning_rate
from jaxnn.optim.rules.adadelta import AdadeltaState, adadelta, scale_by_adadelta
from jaxnn.optim.rules.adagrad import AdagradState, adagrad, adagrad_as_published, scale_by_rss
from jaxnn.optim.rules.adam import AdamState, adam, adamw, nadam, nadamw, scale_by_adam
from jaxnn.optim.rules.adam_variants import (
    AdamaxState,
    AmsgradState,
    adamax,
    adamaxw,
    amsgrad,
    scale_by_adamax,
    scale_by_amsgrad,
)
from jaxnn.optim.rules.adan import AdanState, adan, scale_by_adan
from jaxnn.optim.rules.ademamix import (
    AdemamixState,
    SimplifiedAdemamixState,
    ademamix,
    scale_by_ademamix,
    scale_by_simplified_ademamix,
    simplified_ademamix,
)
from jaxnn.optim.rules.adopt import adopt, scale_by_adopt
from jaxnn.optim.rules.belief import (
    BeliefState,
    YogiState,
    acprop,
    adabelief,
    scale_by_acprop,
    scale_by_belief,
    scale_by_yogi,
    yogi,
)
from jaxnn.optim.rules.cocob import CocobState, cocob, scale_by_cocob
from jaxnn.optim.rules.dadapt import DAdaptAdamWState, ProdigyState, dadapt_adamw, prodigy
from jaxnn.optim.rules.distance import (
    DistanceOverGradientsState,
    DoGState,
    DoWGState,
    dog,
    dowg,
    scale_by_distance_over_gradients,
)
from jaxnn.optim.rules.factored import FactoredState, adafactor, scale_by_factored_rms
from jaxnn.optim.rules.layerwise import fromage, lamb, lars, scale_by_trust_ratio
from jaxnn.optim.rules.madgrad import MadgradState, madgrad, scale_by_madgrad
from jaxnn.optim.rules.momo import MomoAdamState, MomoState, momo, momo_adam
from jaxnn.optim.rules.noise import AddNoiseState, add_noise, noisy_sgd
from jaxnn.optim.rules.novograd import NovogradState, novograd, scale_by_novograd
from jaxnn.optim.rules.optimistic import (
    OptimisticAdamState,
    OptimisticGradientState,
    optimistic_adam,
    optimistic_adam_v2,
    optimistic_gradient_descent,
    scale_by_optimistic_gradient,
)
from jaxnn.optim.rules.polyak import polyak_sgd, scale_by_polyak
from jaxnn.optim.rules.private import (
    DifferentiallyPrivateAggregateState,
    differentially_private_aggregate,
    dpsgd,
    per_example_global_norm_clip,
    per_example_layer_norm_clip,
)
from jaxnn.optim.rules.radam import radam, scale_by_radam
from jaxnn.optim.rules.rmsprop import RMSpropState, rmsprop, scale_by_rms, scale_by_stddev
from jaxnn.optim.rules.rprop import RpropState, rprop, scale_by_rprop
from jaxnn.optim.rules.sam import NormalizeState, SAMState, normalize, sam
from jaxnn.optim.rules.schedule_free import (
    ScheduleFreeState,
    schedule_free,
    schedule_free_adamw,
    schedule_free_eval_params,
    schedule_free_sgd,
)
from jaxnn.optim.rules.sgd import TraceState, nesterov_lookahead, sgd, trace
from jaxnn.optim.rules.sign import LionState, SignumState, lion, scale_by_lion, scale_by_sign, sign_sgd, signum
from jaxnn.optim.rules.sm3 import SM3State, scale_by_sm3, sm3
from jaxnn.optim.rules.sophia import (
    HutchinsonState,
    SophiaState,
    hutchinson_estimator_diag_hessian,
    scale_by_sophia,
    sophia,
)
from jaxnn.optim.scale import (
    add_decayed_weights,
    identity,
    scale,
    scale_by_learning_rate,
    scale_by_schedule,
    set_to_zero,
    stateless,
)
from jaxnn.optim.spec import build, describe, spec
from jaxnn.optim.wrappers.accumulation import (
    ApplyEvery,
    MultiSteps,
    MultiStepsState,
    ShouldSkipUpdateFunction,
    accumulate,
    apply_every,
    skip_large_updates,
    skip_not_finite,
)
from jaxnn.optim.wrappers.averages import (
    AverageState,
    EmaState,
    average_params,
    averaged_params,
    ema,
    incremental_update,
    periodic_update,
)
from jaxnn.optim.wrappers.clip import (
    ZeroNansState,
    adaptive_grad_clip,
    centralize,
    clip,
    clip_by_block_rms,
    clip_by_global_norm,
    global_norm,
    keep_params_nonnegative,
    zero_nans,
)
from jaxnn.optim.wrappers.inject import (
    InjectHyperparamsState,
    InjectStatefulHyperparamsState,
    WrappedSchedule,
    WrappedScheduleState,
    get_hyperparams,
    inject_hyperparams,
    inject_stateful_hyperparams,
    with_hyperparams,
)
from jaxnn.optim.wrappers.interop import (
    SplitRealAndImaginaryState,
    flatten,
    init_empty_state,
    scale_gradient,
    split_real_and_imaginary,
    stateless_with_tree_map,
    tree_map_params,
    with_extra_args_support,
)
from jaxnn.optim.wrappers.mechanic import MechanicState, mechanize
from jaxnn.optim.wrappers.monitor import MonitorState, SnapshotState, measure_with_ema, monitor, named_state, snapshot
from jaxnn.optim.wrappers.partition import (
    MaskedNode,
    MaskedState,
    PartitionState,
    freeze,
    masked,
    multi_transform,
    partition,
    selective_transform,
)
from jaxnn.optim.wrappers.plateau import ReduceLROnPlateauState, reduce_on_plateau
from jaxnn.optim.wrappers.scale_by_norm import (
    normalize_by_update_norm,
    scale_by_param_block_norm,
    scale_by_param_block_rms,
)
from jaxnn.optim.wrappers.wrappers import (
    ApplyIfFiniteState,
    ConditionallyMaskState,
    ConditionallyTransformState,
    LookaheadParams,
    LookaheadState,
    apply_if_finite,
    conditionally_mask,
    conditionally_transform,
    lookahead,
)
from jaxnn.schedules import (
    Schedule,
    constant_schedule,
    cosine_decay_schedule,
    cosine_onecycle_schedule,
    exponential_decay,
    join_schedules,
    linear_onecycle_schedule,
    linear_schedule,
    piecewise_constant_schedule,
    piecewise_interpolate_schedule,
    polynomial_schedule,
    sgdr_schedule,
    sqrt_batch_size_rule,
    warmup_constant_schedule,
    warmup_cosine_decay_schedule,
    warmup_exponential_decay_schedule,
)
from jaxnn.types import Params, ScalarOrSchedule

__all__ = [
    "AdadeltaState", "AdagradState", "AdamState", "AdamaxState", "AdanState", "AddNoiseState", "AdemamixState",
    "AmsgradState", "ApplyEvery", "ApplyIfFiniteState", "AverageState", "BacktrackingLinesearchInfo", "BeliefState",
    "CocobState", "ConditionallyMaskState", "ConditionallyTransformState", "DAdaptAdamWState",
    "DifferentiallyPrivateAggregateState", "DistanceOverGradientsState", "DoGState", "DoWGState", "EmaState",
    "EmptyState", "FactoredState", "GaLoreDimensionNumbers", "GaLoreState", "GradientTransformation",
    "GradientTransformationExtraArgs", "HutchinsonState", "InjectHyperparamsState", "InjectStatefulHyperparamsState",
    "KahanState", "LionState", "LookaheadParams", "LookaheadState", "LossScaleState", "MadgradState", "MaskOrFn",
    "MaskedNode", "MaskedState", "MasterWeightsState", "MechanicState", "MomoAdamState", "MomoState", "MonitorState",
    "MultiSteps", "MultiStepsState", "MuonDimensionNumbers", "MuonState", "NormalizeState", "NovogradState", "OptState",
    "OptimisticAdamState", "OptimisticGradientState", "Optimizer", "Params", "PartitionState", "ProdigyState",
    "QuantizedState", "RMSpropState", "ReduceLROnPlateauState", "RpropState", "SAMState", "SM3State",
    "ScalarOrSchedule", "ScaleByBacktrackingLinesearchState", "ScaleByLBFGSState", "ScaleByZoomLinesearchState",
    "Schedule", "ScheduleFreeState", "ShampooState", "ShouldSkipUpdateFunction", "SignumState",
    "SimplifiedAdemamixState", "SnapshotState", "SoapState", "SophiaState", "SplitRealAndImaginaryState",
    "StochasticRoundingState", "TraceState", "TransformInitFn", "TransformUpdateExtraArgsFn", "TransformUpdateFn",
    "Transformation", "Updates", "WrappedSchedule", "WrappedScheduleState", "YogiState", "ZeroNansState",
    "ZoomLinesearchInfo", "accumulate", "acprop", "adabelief", "adadelta", "adafactor", "adagrad",
    "adagrad_as_published", "adam", "adamax", "adamaxw", "adamw", "adan", "adaptive_grad_clip", "add_decayed_weights",
    "add_noise", "ademamix", "adopt", "amsgrad", "apply_every", "apply_if_finite", "apply_updates", "average_params",
    "averaged_params", "bias_correction", "build", "centralize", "chain", "clip", "clip_by_block_rms",
    "clip_by_global_norm", "cocob", "conditionally_mask", "conditionally_transform", "constant_schedule",
    "cosine_decay_schedule", "cosine_onecycle_schedule", "dadapt_adamw", "dequantize", "describe",
    "differentially_private_aggregate", "dog", "dowg", "dpsgd", "dynamic_loss_scale", "ema", "exponential_decay",
    "flatten", "freeze", "fromage", "galore", "get_hyperparams", "global_norm", "hutchinson_estimator_diag_hessian",
    "identity", "incremental_update", "init_empty_state", "inject_hyperparams", "inject_stateful_hyperparams",
    "join_schedules", "kahan", "keep_params_nonnegative", "lamb", "lars", "lbfgs", "learning_rate",
    "linear_onecycle_schedule", "linear_schedule", "lion", "lookahead", "madgrad", "masked", "master_weights",
    "matrix_inverse_pth_root", "measure_with_ema", "mechanize", "microbatch", "momo", "momo_adam", "monitor",
    "multi_transform", "muon", "muon_with_roles", "nadam", "nadamw", "named_chain", "named_state", "nesterov_lookahead",
    "nnls", "noisy_sgd", "normalize", "normalize_by_update_norm", "novograd", "optimistic_adam", "optimistic_adam_v2",
    "optimistic_gradient_descent", "orthogonalize_via_newton_schulz", "partition", "per_example_global_norm_clip",
    "per_example_layer_norm_clip", "periodic_update", "piecewise_constant_schedule", "piecewise_interpolate_schedule",
    "polyak_sgd", "polynomial_schedule", "power_iteration", "prodigy", "quantize", "quantized_state", "radam",
    "reduce_on_plateau", "rmsprop", "rprop", "safe_increment", "safe_int32_increment", "safe_norm",
    "safe_root_mean_squares", "sam", "scale", "scale_by_acprop", "scale_by_adadelta", "scale_by_adam",
    "scale_by_adamax", "scale_by_adan", "scale_by_ademamix", "scale_by_adopt", "scale_by_amsgrad",
    "scale_by_backtracking_linesearch", "scale_by_belief", "scale_by_cocob", "scale_by_distance_over_gradients",
    "scale_by_factored_rms", "scale_by_galore", "scale_by_lbfgs", "scale_by_learning_rate", "scale_by_lion",
    "scale_by_madgrad", "scale_by_muon", "scale_by_novograd", "scale_by_optimistic_gradient",
    "scale_by_param_block_norm", "scale_by_param_block_rms", "scale_by_polyak", "scale_by_radam", "scale_by_rms",
    "scale_by_rprop", "scale_by_rss", "scale_by_schedule", "scale_by_shampoo", "scale_by_sign",
    "scale_by_simplified_ademamix", "scale_by_sm3", "scale_by_soap", "scale_by_sophia", "scale_by_stddev",
    "scale_by_trust_ratio", "scale_by_yogi", "scale_by_zoom_linesearch", "scale_gradient", "schedule_free",
    "schedule_free_adamw", "schedule_free_eval_params", "schedule_free_sgd", "selective_transform", "set_to_zero",
    "sgd", "sgdr_schedule", "shampoo", "sign_sgd", "signum", "simplified_ademamix", "skip_large_updates",
    "skip_not_finite", "sm3", "snapshot", "soap", "sophia", "spec", "split_real_and_imaginary", "sqrt_batch_size_rule",
    "stateless", "stateless_with_tree_map", "stochastic_rounding", "trace", "tree_map_params", "update_infinity_moment",
    "update_moment", "update_moment_per_elem_norm", "value_and_grad_from_state", "warmup_constant_schedule",
    "warmup_cosine_decay_schedule", "warmup_exponential_decay_schedule", "with_extra_args_support", "with_hyperparams",
    "yogi", "zero_nans",
]  # fmt: skip

if not TYPE_CHECKING:  # type checkers know the names
    __getattr__ = missing.suggest(__name__)
