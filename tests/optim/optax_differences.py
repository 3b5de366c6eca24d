"""The tests of optax 0.2.8 that jaxnn fails, each with the reason.

By file, the beginning of a test's title (`optax_suites.title`) as a regular expression. The list is strict: what it
names must fail, and what it does not name must pass.
"""

from __future__ import annotations

ONE_TUPLE = "A state is one named tuple for each rule (state.mu); the test indexes optax's nested chain."
PRIVATE = "It tests a private function of optax."
EARLIER = "An argument that makes no sense is refused when the schedule or rule is made; optax goes on in silence."
ERROR = "The error is another: "
IGNORED = "Extra arguments that a rule does not know are ignored, so that a search can be chained with others."
EACH = "A loss of that name is jaxnn's own: one value for each of N examples, summed or averaged over the other axes."
HALF = "Moments of half-precision parameters are float32 unless asked otherwise."
INTEGERS = "Adam refuses integer parameters, whose moments mean nothing; the test has no others."
NO_WARNING = "optimistic_adam is not deprecated here."

DIFFERENT: dict[str, dict[str, str]] = {
    "_src/alias_test": {
        r"AliasTest\.test_explicit_dtype\(params_dtype='bfloat16', state_dtype=None": HALF,
        r"AliasTest\.test_explicit_dtype\(params_dtype='complex64', state_dtype='(bfloat16|float32)'": (
            "optax is wrong: a real first moment drops the imaginary part of the gradients; here it is complex."
        ),
        r"AliasTest\.test_\w+\(opt_name='optimistic_adam'": NO_WARNING,
        r"LBFGSTest\.test_against_plain_implementation\(problem_name='himmelblau'": (
            "optax is wrong: it keeps pairs of negative curvature, and its direction may point uphill; "
            "min_curvature=-math.inf does so too."
        ),
        r"LBFGSTest\.test_preconditioning_by_lbfgs_on_": PRIVATE,
    },
    "_src/combine_test": {r"ExtraArgsTest\.test_extra_args$": INTEGERS},
    "_src/linesearch_test": {
        r"\w+\.test_(zoom_)?linesearch_raises_on_unused_extra_args": IGNORED,
        r"ZoomLinesearchTest\.test_dtype_stability": EARLIER + " It asks for increase_factor=1e-5.",
        r"ZoomLinesearchTest\.test_extract_fns_kwargs": PRIVATE,
        r"ZoomLinesearchTest\.test_failure_(descent|flat|not_enough|too_small)": (
            "It looks for optax's private constants in what the search prints."
        ),
        r"ZoomLinesearchTest\.test_value_and_grad_from_state": ERROR + "a ValueError, no KeyError.",
    },
    "_src/transform_test": {
        r"TransformTest\.test_centralize_[23]d": (
            "optax is wrong: the mean is over all axes but the outputs', which is the last in JAX's kernels (Yong et "
            "al. 2020, equation 1); optax keeps the first. centralize(keep_axis=0) does as optax does."
        ),
        r"TransformTest\.test_lion_invalid_mode_raises": EARLIER,
        r"TransformTest\.test_scale_by_polyak_l1_norm": ERROR + "a ValueError that says what to pass, no TypeError.",
    },
    "contrib/_galore_test": {
        r"GaLoreTest\.test_3d_attention_weights": ONE_TUPLE,
        r"GaLoreTest\.test_3d_memory_reduction": ONE_TUPLE,
        r"GaLoreTest\.test_dimension_numbers_right_projection": ONE_TUPLE,
        r"GaLoreTest\.test_left_vs_right_projection_state_shapes": ONE_TUPLE,
        r"GaLoreTest\.test_memory_reduction_vs_full_moments": ONE_TUPLE,
        r"GaLoreTest\.test_mu_dtype_controls_moment_dtype": ONE_TUPLE,
        r"GaLoreTest\.test_projector_": ONE_TUPLE,
        r"GaLoreTest\.test_rank_is_clipped_to_min_dimension": ONE_TUPLE,
    },
    "contrib/_muon_test": {
        r"MuonTest\.test_dim_nums_combinations": ONE_TUPLE,
        r"MuonTest\.test_reshape_inverse": PRIVATE,
    },
    "contrib/_schedule_free_test": {
        r"ScheduleFreeTest\.test_explicit_dtype\(params_dtype='bfloat16', state_dtype=None": (
            "States of half-precision parameters are float32 unless asked otherwise."
        ),
    },
    "losses/_classification_test": {
        r"GeneralizedKLDivergenceTest\.test_deprecated_alias": "convex_kl_divergence is not deprecated here.",
        r"KLDivergenceTest\.test_(axis|mask|scalar)": EACH,
        r"PerceptronTest\.test_binary": EACH,
        r"PolyLossTest\.test_equals_to_cross_entropy_when_eps\(logits=array\(\[\d": EACH,
        r"SafeSoftmaxCrossEntropyTest\.test_against_plain_implementation": EACH,
        r"SigmoidFocalLossTest\.test_(alpha_one|focal_|ignore_|scale)": EACH,
        r"SoftmaxCrossEntropyTest\.test_(axis|mask|scalar)": EACH,
        r"SoftmaxCrossEntropyTest\.test_gradient": "Targets below 0 are refused; the check moves some there.",
        r"SoftmaxCrossEntropyWithIntegerLabelsTest\.test_consistent_with_softmax_cross_entropy_scalar": EACH,
    },
    "losses/_regression_test": {
        r"CosineDistanceTest\.test_(mask|scalar)_distance": EACH,
        r"LogCoshTest\.test_scalar$": EACH,
    },
    "losses/_segmentation_test": {
        r"DiceLossTest\.test_probability_validation": ERROR + "other words.",
    },
    "microbatching/_microbatching_test": {
        r"MicrobatchingTest\.test_raises_on_invalid_microbatches": ERROR + "other words.",
    },
    "schedules/_inject_test": {
        r"InjectHyperparamsTest\.test_inject_hyperparams_starts_with_step_count_zero": (
            "An integer gradient is refused: its update would be truncated."
        ),
        r"InjectHyperparamsTest\.test_hyperparam_default_dtype_bf16": (
            "optax is wrong: in bfloat16 a decay rate of 0.999 is 1; hyperparameters beside bfloat16 parameters are "
            "float32 unless hyperparam_dtype asks otherwise."
        ),
    },
    "schedules/_schedule_test": {
        r"PolynomialTest\.test_zero_steps_schedule": EARLIER,
        r"ExponentialTest\.test_nonvalid_": EARLIER,
    },
    "transforms/_adding_test": {
        r"AddingTest\.test_none_argument": "The test passes 0 for a state that no `init` made; ours counts the steps.",
    },
    "transforms/_clipping_test": {
        r"ClippingTest\.test_clip_by_block_rms": "Rounding: the clipped RMS is 1 - 1.2e-7, and 7 decimals are asked.",
    },
    "transforms/_combining_test": {r"ExtraArgsTest\.test_extra_args$": INTEGERS},
    "transforms/_freezing_test": {
        r"FreezeTest\.test_bad_structure_raises": ERROR + "it prints both structures, and does not quote JAX's words.",
        r"SelectiveTransformTest\.test_selective_bad_structure": ERROR + "as above.",
    },
    "transforms/_masking_test": {
        r"MaskedTest\.test_mask_compatible_callable_pytree": PRIVATE,
        r"MaskedTest\.test_masked_state_structure": ONE_TUPLE,
    },
}

AWAITED: dict[str, dict[str, str]] = {}
"""What is on its way into jaxnn; each entry goes as soon as its tests pass."""
