"""Gradient descent, and its batches."""

from jaxnn.gallery.items.base import Item

ITEMS = (
    Item("gradient descent until convergence", "train.minimize, optim.sgd", figure="step-sizes"),
    Item("every point of a descent", "train.trajectory", figure="step-sizes"),
    Item("gradient ascent", "train.maximize"),
    Item(
        "one update, theta <- theta - eta gradient",
        "optim.sgd, optim.apply_updates",
        """
        >>> opt, theta = optim.sgd(0.1), jnp.array([1.0, 2.0])
        >>> optim.apply_updates(theta, opt.update(2 * theta, opt.init(theta), theta)[0])
        Array([0.8, 1.6], dtype=float32)
        """,
    ),
    Item(
        "descent over several parameters at once",
        "train.minimize",
        """
        >>> f, start = lambda p: (p["a"] - 1.0) ** 2 + jnp.sum(p["b"] ** 2), {"a": 0.0, "b": jnp.ones(2)}
        >>> train.minimize(f, optim.sgd(0.5), start, steps=5).x
        {'a': Array(1., dtype=float32), 'b': Array([0., 0.], dtype=float32)}
        """,
    ),
    Item(
        "gradient 0 at a minimum of several variables",
        "landscapes.himmelblau",
        """
        >>> f = landscapes.himmelblau()
        >>> jnp.abs(jax.vmap(jax.grad(f))(jnp.asarray(f.minima, jnp.float32))).max() < 1e-3
        Array(True, dtype=bool)
        """,
    ),
    Item(
        "closed form against iteration: least squares",
        "classic.baselines.least_squares, classic.adaline.fit",
        """
        >>> x, y = neurons.with_bias([[-1.0], [0.0], [1.0]]), jnp.array([-1, 1, 1])
        >>> w = baselines.least_squares(x, (y + 1) // 2, 2, ridge=1e-6)[:, 1]
        >>> jnp.allclose(w, adaline.fit(x, y, learning_rate=0.01, passes=1000).w, atol=0.01)
        Array(True, dtype=bool)
        """,
    ),
    Item("convergence test on the value and on the gradient", "train.minimize, train.LossTolerance"),
    Item("training until the loss changes little", "train.LossTolerance"),
    Item("training until the gradient is small", "train.GradTolerance, train.grad_norm"),
    Item(
        "descent until nothing changes: both tolerances 0",
        "train.minimize",
        """
        >>> end = train.minimize(lambda x: x**2, optim.sgd(0.5), 3.0, steps=9)
        >>> end.x, end.steps
        (Array(0., dtype=float32), Array(9, dtype=int32))
        """,
    ),
    Item(
        "convex function: the minimum from every start",
        "train.minimize, landscapes.quadratic",
        """
        >>> end = lambda start: train.minimize(landscapes.quadratic(2.0), optim.sgd(0.5), start, steps=60).x
        >>> jnp.abs(jax.vmap(end)(jnp.array([[9.0, -9.0], [1.0, 5.0]]))).max() < 1e-6
        Array(True, dtype=bool)
        """,
    ),
    Item(
        "non-convex function: another minimum from another start",
        "train.minimize, train.nearest",
        """
        >>> end = lambda start: train.minimize(lambda x: (x**2 - 1.0) ** 2, optim.sgd(0.05), start, steps=99).x
        >>> jax.vmap(end)(jnp.array([-0.5, 0.5])).round(3)
        Array([-1.,  1.], dtype=float32)
        """,
        figure="basins",
    ),
    Item("basin of attraction of a minimum", "train.nearest", figure="basins"),
    Item("learning rate too small, good, oscillating, diverging", figure="step-sizes"),
    Item("learning rate of step k", "schedules.exponential_decay, schedules.cosine_decay_schedule"),
    Item("batch gradient descent, one update per epoch", "classic.batching.course", figure="batches"),
    Item(
        "stochastic gradient descent: 20 examples, 20 updates per epoch",
        "data.batch_indices, train.make_epoch",
        """
        >>> indices, _ = data.batch_indices(jax.random.key(0), 20, 1, partial=data.Partial.DROP)
        >>> indices.shape, sorted(indices.ravel().tolist()) == list(range(20))
        ((20, 1), True)
        """,
        figure="batches",
    ),
    Item("mini-batch gradient descent", "train.make_epoch", figure="batches"),
    Item("batches of one size; the rest dropped or padded", "data.batch_indices, data.Partial"),
    Item(
        "examples shuffled before each epoch",
        "data.batch_indices",
        """
        >>> order = lambda key: data.batch_indices(key, 20, 5, partial=data.Partial.DROP)[0]
        >>> bool((order(jax.random.key(0)) == order(jax.random.key(1))).all())
        False
        """,
    ),
    Item("learning rate for k times the batch: times sqrt(k)", "schedules.sqrt_batch_size_rule"),
    Item(
        "batch gradient as the mean of the gradients of single examples",
        "per_example.materialize, per_example.mean_grad",
        """
        >>> tape = per_example.record(lambda w, x: (w * x - 1.0) ** 2)(jnp.array(2.0), jnp.array([1.0, 3.0]))
        >>> per_example.materialize(tape), per_example.mean_grad(tape)  # 2 (w x - 1) x
        (Array([ 2., 30.], dtype=float32), Array(16., dtype=float32))
        """,
    ),
    Item(
        "variance of the mean gradient of B examples: that of one, divided by B",
        "per_example.variance, per_example.noise_scale",
        """
        >>> tape = per_example.record(lambda w, x: (w * x - 1.0) ** 2)(jnp.array(2.0), jnp.array([1.0, 3.0]))
        >>> per_example.variance(tape), per_example.variance(tape) / 2  # of one example (2 or 30), of the mean of two
        (Array(196., dtype=float32), Array(98., dtype=float32))
        """,
    ),
    Item("loss against updates and against time, by batch size", "classic.batching.course", figure="batches"),
    Item("turning points: where f' is 0", "classic.stationary.in_interval", figure="turning-points"),
    Item("maximum, minimum, inflection and saddle told apart", "classic.stationary.kind_of", figure="stationary-kinds"),
    Item("saddle: eigenvalues of both signs", figure="saddle-points"),
    Item("kind of point at which a run ended", "train.kind_of_point"),
    Item("direction of steepest ascent, against all others", figure="steepest-ascent"),
    Item("descent in one variable: a ball on a curve", figure="descent-one-variable"),
    Item("momentum that leaves a shallow basin", figure="ball-momentum"),
    Item("batch and stochastic descent on one contour, a gradient for each example", figure="examples-gradients"),
    Item("brute force over all weights", "classic.brute_force.search", figure="brute-force"),
    Item("variance of the update against batch size", "classic.batch_noise.variances", figure="batches"),
)
