"""Linear units: the delta rule, logistic regression, baselines."""

from jaxnn.gallery.items.base import Item

ITEMS = (
    Item("delta rule on one example", "classic.adaline.delta_rule"),
    Item("Adaline: delta rule for classification", "classic.adaline.fit", figure="linear-units"),
    Item(
        "delta rule for regression: the least squared error",
        "classic.adaline.fit",
        """
        >>> x, d = neurons.with_bias([[-1.0], [0.0], [1.0]]), jnp.array([0.0, 1.0, 1.0])
        >>> w = adaline.fit(x, d, learning_rate=0.01, passes=2000).w
        >>> np.allclose(w, np.linalg.lstsq(x, d)[0], atol=0.01)
        True
        """,
    ),
    Item("Adaline, perceptron and logistic regression compared", figure="linear-units"),
    Item("probability of a class: sigmoid of w.x", "classic.logistic.probability"),
    Item("log-likelihood of logistic regression", "classic.logistic.log_likelihood"),
    Item("gradient of the log-likelihood", "classic.logistic.gradient"),
    Item("logistic regression by batch ascent", "classic.logistic.fit", figure="logistic-ascent"),
    Item(
        "stochastic ascent: one example per update",
        "classic.logistic.fit",
        """
        >>> x, y = [[1.0, -1.0], [1.0, 0.5], [1.0, 1.0]], [-1, -1, 1]
        >>> found = logistic.fit(x, y, key=jax.random.key(0), learning_rate=0.1, epochs=9, batch_size=1)
        >>> found.log_likelihood[9] > found.log_likelihood[0]
        Array(True, dtype=bool)
        """,
        figure="logistic-ascent",
    ),
    Item("batch, mini-batch and stochastic ascent compared", figure="logistic-ascent"),
    Item(
        "bias as the log-odds of a class: 30 examples against 10",
        "classic.logistic.fit",
        """
        >>> x, y = jnp.ones((40, 1)), jnp.repeat(jnp.array([1, -1]), jnp.array([30, 10]))
        >>> w = logistic.fit(x, y, key=jax.random.key(0), learning_rate=0.1, epochs=50, batch_size=40).w
        >>> jnp.allclose(w, jnp.log(3.0))
        Array(True, dtype=bool)
        """,
    ),
    Item(
        "labels 0 and 1, or -1 and +1",
        "classic.logistic.log_likelihood",
        """
        >>> w, x = jnp.array([0.5]), jnp.array([[1.0], [2.0]])
        >>> logistic.log_likelihood(w, x, [0, 1]) == logistic.log_likelihood(w, x, [-1, 1])
        Array(True, dtype=bool)
        """,
    ),
    Item("multi-class logistic regression", "classic.logistic.softmax_fit", figure="templates"),
    Item("probabilities of several classes: softmax of w_k.x", "classic.logistic.softmax_probability"),
    Item(
        "log-likelihood of several classes, and its gradient",
        "classic.logistic.softmax_gradient, classic.logistic.softmax_log_likelihood",
    ),
    Item(
        "multi-class logistic regression as a network of one layer",
        "models.linear, classic.logistic.softmax_gradient",
        """
        >>> x, y, params = jnp.eye(3), jnp.array([0, 1, 1]), ((), {"w": jnp.ones((3, 2)), "b": jnp.zeros(2)})
        >>> vg = backprop.value_and_grad(models.linear(2), losses.softmax_cross_entropy)
        >>> ours = vg(params, (), x, y)[1][1]["w"]
        >>> jnp.allclose(-3 * ours, logistic.softmax_gradient(params[1]["w"], x, y))
        Array(True, dtype=bool)
        """,
    ),
    Item("templates: the weights of a linear classifier of digits", figure="templates"),
    Item("linear classifier by least squares", "classic.baselines.least_squares"),
    Item("linear classifiers of pairs of classes", "classic.baselines.pairwise_least_squares"),
    Item("nearest neighbours", "classic.baselines.nearest, classic.baselines.vote"),
    Item("regions in which one of three classes is most probable", figure="softmax-regions"),
)
