"""The public names of jaxnn 0.1, by room: what a script of then may import."""

NAMES = {
    "activations": """
        DERIVATIVES SELU_ALPHA SELU_SCALE derivative_of elu elu_derivative gelu gelu_derivative gelu_tanh
        gelu_tanh_derivative hard_tanh hard_tanh_derivative heaviside heaviside_derivative leaky_relu
        leaky_relu_derivative linear linear_derivative log_softmax log_softmax_jvp log_softmax_vjp mish
        mish_derivative perceptron_sign perceptron_sign_derivative piecewise_linear piecewise_linear_derivative
        relu relu_derivative selu selu_derivative sigmoid sigmoid_derivative sign sign_derivative silu
        silu_derivative softmax softmax_jvp softmax_vjp softplus softplus_derivative tanh tanh_derivative
    """,
    "backprop": """
        AUTOMATIC Rule combinators coupled_layers coverage ggn_record keep_input linear norms output_record
        pointwise record register rule_of trace_table value_and_grad
    """,
    "checks": """
        as_array as_arrays as_numpy concrete_number nearest_name pair require_between require_floating
        require_function require_integer require_key require_leading_axis require_number require_positive
        require_positive_int require_same_shape
    """,
    "classic": """
        adaline approximation baselines batching boolean gan gates generalization logistic minimize mixture
        multiclass neurons parity perceptron regions saturation separability shifts symmetry threshold trials
        width
    """,
    "compare": """
        Case Cost Entry Parity Problem Race Result as_optax entry grid measure pair problems race report
    """,
    "data": """
        Dataset Partial Splits TrainTest augment batch_indices digits download fashion_mnist load make_dataset
        mnist read_idx select split take toy warp write_idx
    """,
    "files": """
        UnwrittenError append_line create_bytes make_folder read_json require_no_bomb write_bytes write_csv
        write_json write_npz write_text
    """,
    "gallery": """
        Picture
    """,
    "initializers": """
        Distribution Fan Initializer centered_uniform constant fan_avg fan_in fan_out glorot_normal
        glorot_uniform he_normal he_uniform lecun_normal lecun_uniform normal orthogonal truncated_normal
        uniform variance_scaling zeros
    """,
    "landscapes": """
        LANDSCAPES Landscape NoisyQuadratic beale himmelblau noisy_quadratic plateau quadratic rosenbrock saddle
        schwefel
    """,
    "layers": """
        Activation AveragePool BatchNorm Conv Dense DepthwiseConv Dropout Elu Embedding Flatten Gelu
        GlobalAveragePool GlobalMaxPool GroupNorm HardTanh Identity Kind Layer LayerNorm LeakyRelu LogSoftmax
        MaxPool Mish RMSNorm Relu Selu Sigmoid Silu Softmax Softplus Tanh activation batch_norm conv dense
        dropout embedding flatten group_norm layer_norm pooling rms_norm stateless
    """,
    "losses": """
        Regularizer absolute_error absolute_error_grad binary_cross_entropy binary_cross_entropy_grad
        binary_dice_loss convex_kl_divergence cosine_distance cosine_distance_grad cosine_similarity
        cross_entropy cross_entropy_grad ctc_loss ctc_loss_with_forward_probs derivative_of dice_loss elastic
        elastic_grad entropy entropy_grad example_weights gaussian_nll gaussian_nll_grad
        generalized_kl_divergence half_squared_error half_squared_error_grad hessian_root_of hinge hinge_grad
        hinge_loss huber huber_grad huber_loss is_likelihood kl_divergence kl_divergence_grad
        kl_divergence_with_log_targets l1 l1_grad l2 l2_grad l2_loss log_cosh log_cosh_grad logistic
        logistic_grad make_fenchel_young_loss mixture_density_nll mixture_density_nll_grad mse mse_grad
        multiclass_generalized_dice_loss multiclass_hinge multiclass_hinge_grad multiclass_hinge_loss
        multiclass_perceptron_loss multiclass_sparsemax_loss ntxent perceptron_loss perceptron_loss_grad
        poly_loss_cross_entropy ranking_softmax_loss regularizer_derivative_of safe_softmax_cross_entropy
        sampled_error_of sigmoid_binary_cross_entropy sigmoid_binary_cross_entropy_grad sigmoid_focal_loss
        smooth_labels softmax_cross_entropy softmax_cross_entropy_grad softmax_cross_entropy_with_integer_labels
        sparsemax_loss square_loss square_loss_grad squared_error triplet_margin_loss
    """,
    "metrics": """
        accuracy binary_accuracy confusion_matrix error_rate predicted_class r_squared rmse top_k_accuracy
    """,
    "microbatching": """
        AccumulationType Accumulator IndividualOutputs micro_grad micro_vmap microbatch reshape_batch_axis
    """,
    "missing": """
        message public_names suggest suggestions
    """,
    "models": """
        cnn linear mlp parallel residual serial summary
    """,
    "npz": """
        ArrayHeader read_npy read_npz
    """,
    "numerics": """
        accumulate accumulation_dtype largest safe_cbrt safe_divide safe_sqrt xlogy
    """,
    "optim": """
        AdadeltaState AdagradState AdamState AdamaxState AdanState AddNoiseState AdemamixState AmsgradState
        ApplyEvery ApplyIfFiniteState AverageState BacktrackingLinesearchInfo BeliefState CocobState
        ConditionallyMaskState ConditionallyTransformState DAdaptAdamWState DifferentiallyPrivateAggregateState
        DistanceOverGradientsState DoGState DoWGState EmaState EmptyState FactoredState GaLoreDimensionNumbers
        GaLoreState GradientTransformation GradientTransformationExtraArgs HutchinsonState
        InjectHyperparamsState InjectStatefulHyperparamsState KahanState LionState LookaheadParams
        LookaheadState MadgradState MaskOrFn MaskedNode MaskedState MasterWeightsState MechanicState
        MomoAdamState MomoState MonitorState MultiSteps MultiStepsState MuonDimensionNumbers MuonState
        NormalizeState NovogradState OptState OptimisticAdamState OptimisticGradientState Optimizer Params
        PartitionState ProdigyState QuantizedState RMSpropState ReduceLROnPlateauState RpropState SAMState
        SM3State ScalarOrSchedule ScaleByBacktrackingLinesearchState ScaleByLBFGSState
        ScaleByZoomLinesearchState Schedule ScheduleFreeState ShampooState ShouldSkipUpdateFunction SignumState
        SimplifiedAdemamixState SnapshotState SoapState SophiaState SplitRealAndImaginaryState
        StochasticRoundingState TraceState TransformInitFn TransformUpdateExtraArgsFn TransformUpdateFn
        Transformation Updates WrappedSchedule WrappedScheduleState YogiState ZeroNansState ZoomLinesearchInfo
        accumulate acprop adabelief adadelta adafactor adagrad adagrad_as_published adam adamax adamaxw adamw adan
        adaptive_grad_clip add_decayed_weights add_noise ademamix adopt amsgrad apply_every apply_if_finite
        apply_updates average_params averaged_params bias_correction centralize chain clip clip_by_block_rms
        clip_by_global_norm cocob conditionally_mask conditionally_transform constant_schedule
        cosine_decay_schedule cosine_onecycle_schedule dadapt_adamw dequantize differentially_private_aggregate
        dog dowg dpsgd ema exponential_decay flatten freeze fromage galore get_hyperparams global_norm
        hutchinson_estimator_diag_hessian identity incremental_update init_empty_state inject_hyperparams
        inject_stateful_hyperparams join_schedules kahan keep_params_nonnegative lamb lars lbfgs
        linear_onecycle_schedule linear_schedule lion lookahead madgrad masked master_weights
        matrix_inverse_pth_root measure_with_ema mechanize microbatch momo momo_adam monitor multi_transform
        muon muon_with_roles nadam nadamw named_chain named_state nesterov_lookahead nnls noisy_sgd normalize
        normalize_by_update_norm novograd optimistic_adam optimistic_adam_v2 optimistic_gradient_descent
        orthogonalize_via_newton_schulz partition per_example_global_norm_clip per_example_layer_norm_clip
        periodic_update piecewise_constant_schedule piecewise_interpolate_schedule polyak_sgd
        polynomial_schedule power_iteration prodigy quantize quantized_state radam reduce_on_plateau rmsprop
        rprop safe_increment safe_int32_increment safe_norm safe_root_mean_squares sam scale scale_by_acprop
        scale_by_adadelta scale_by_adam scale_by_adamax scale_by_adan scale_by_ademamix scale_by_adopt
        scale_by_amsgrad scale_by_backtracking_linesearch scale_by_belief scale_by_cocob
        scale_by_distance_over_gradients scale_by_factored_rms scale_by_galore scale_by_lbfgs
        scale_by_learning_rate scale_by_lion scale_by_madgrad scale_by_muon scale_by_novograd
        scale_by_optimistic_gradient scale_by_param_block_norm scale_by_param_block_rms scale_by_polyak
        scale_by_radam scale_by_rms scale_by_rprop scale_by_rss scale_by_schedule scale_by_shampoo scale_by_sign
        scale_by_simplified_ademamix scale_by_sm3 scale_by_soap scale_by_sophia scale_by_stddev
        scale_by_trust_ratio scale_by_yogi scale_by_zoom_linesearch scale_gradient schedule_free
        schedule_free_adamw schedule_free_eval_params schedule_free_sgd selective_transform set_to_zero sgd
        sgdr_schedule shampoo sign_sgd signum simplified_ademamix skip_large_updates skip_not_finite sm3
        snapshot soap sophia split_real_and_imaginary sqrt_batch_size_rule stateless stateless_with_tree_map
        stochastic_rounding trace tree_map_params update_infinity_moment update_moment
        update_moment_per_elem_norm value_and_grad_from_state warmup_constant_schedule
        warmup_cosine_decay_schedule warmup_exponential_decay_schedule with_extra_args_support with_hyperparams
        yogi zero_nans
    """,
    "per_example": """
        Clip Factors NoiseScale Plan PrivateReport PrivateState add_noise automatic clipped_grad
        clipped_grad_by_layer clipped_grad_of cosine diag_fisher diag_ggn dp_event dp_sgd empirical_fisher_diag
        flat gram jvp_examples kfac_expand kfac_reduce materialize mean_grad no_noise noise_scale norms ntk
        over_microbatches plan poisson_batch poisson_size private_grad psac record second_moment select snr
        sq_norms sq_norms_by_layer sq_norms_by_parameter trace variance variance_centred weighted_grad
    """,
    "perturbations": """
        Gumbel Noise Normal make_perturbed_fun
    """,
    "placement": """
        beside compiler_sharded end_to_end evenly explicit_mesh explicit_spec filled_as full_like on_mesh
        placed_shape rows_spec spec_of taken_apart vector_along
    """,
    "playground": """
        Run Settings Views data draw draw_sources features make_views network penalties render run write_gif
    """,
    "plots": """
        COLOURS arrow computational_graph confusion curves figure mistakes network pictures save show templates
    """,
    "projections": """
        nearest_in_simplex projection_box projection_halfspace projection_hypercube projection_hyperplane
        projection_l1_ball projection_l1_sphere projection_l2_ball projection_l2_sphere projection_linf_ball
        projection_non_negative projection_simplex projection_vector
    """,
    "schedules": """
        Schedule constant_schedule cosine_decay_schedule cosine_onecycle_schedule exponential_decay
        join_schedules linear_onecycle_schedule linear_schedule piecewise_constant_schedule
        piecewise_interpolate_schedule polynomial_schedule sgdr_schedule sqrt_batch_size_rule
        warmup_constant_schedule warmup_cosine_decay_schedule warmup_exponential_decay_schedule
    """,
    "studies": """
        clipped gram hardest influence mislabeled noise_scale norms
    """,
    "tape": """
        Addition Columns Convolution GroupedProduct Lookup Placed Product STATIC Scaling Tape Unplaced Use Whole
        counted error_of errors errors_of of_weighted_losses positions replaced total weighted wide_total
        with_errors
    """,
    "train": """
        Diagnosis DivergedError EarlyStopping FitResult FolderInUseError GradTolerance Iterate LossTolerance
        Sweep TrainState Trajectory Verdict diagnose ensemble evaluate fit grad_norm init make_epoch
        make_evaluate make_outputs make_step map_runs maximize mean_loss minimize minmax nearest sweep
        trajectory
    """,
    "tree": """
        BIAS_NAMES NamedTupleKey add add_scale all_finite allclose batch_shape called cast cast_like clip conj
        div dtype full_like get get_all_with_path is_weight max min mul named_leaves norm ones_like pack
        random_like real scale set size split_key_like sub subtract sum unwrap_random_key_data vdot where
        zeros_like
    """,
    "types": """
        Array ArrayLike ArrayTree DType DTypeLike Key Loss Params PyTree Scalar ScalarOrSchedule Shape State
    """,
    "varying": """
        shape_beside sum_like vary varying_axes
    """,
}
