"""Outputs, losses and penalties."""

from jaxnn.gallery.items.base import Item

ITEMS = (
    Item("empirical risk: mean loss over the examples", "train.mean_loss"),
    Item("output type and its loss: which are likelihoods", "losses.is_likelihood"),
    Item("regression: mean of a Gaussian, linear output", "losses.half_squared_error"),
    Item("binary output: Bernoulli, sigmoid", "losses.sigmoid_binary_cross_entropy, layers.Sigmoid"),
    Item("discrete output: multinoulli, softmax", "losses.softmax_cross_entropy, layers.Softmax"),
    Item("Gaussian output with its variance", "losses.gaussian_nll"),
    Item("mixture-density output", "losses.mixture_density_nll, classic.mixture.fit_mixture", figure="mixture-density"),
    Item("mixture density at an input", "classic.mixture.density"),
    Item("several valid targets: mean and mixture", "classic.mixture.inverse_problem", figure="mixture-density"),
    Item("half squared error, 1/2 |y - d|^2", "losses.half_squared_error"),
    Item("derivative of half the squared error, y - d", "losses.half_squared_error_grad"),
    Item("mean squared error", "losses.mse"),
    Item("sum of squared errors over outputs, without 1/2", "losses.sum_squared_error"),
    Item("distance |y - d|, not squared", "losses.euclidean_error"),
    Item("L1 error", "losses.absolute_error", figure="losses"),
    Item("cross-entropy of probabilities", "losses.cross_entropy"),
    Item("derivative of cross-entropy, -1/y at the label", "losses.cross_entropy_grad"),
    Item("binary cross-entropy of probabilities", "losses.binary_cross_entropy"),
    Item("derivative of binary cross-entropy, -1/y or 1/(1 - y)", "losses.binary_cross_entropy_grad"),
    Item(
        "softmax and cross-entropy together: derivative y - d",
        "losses.softmax_cross_entropy_grad",
        """
        >>> losses.softmax_cross_entropy_grad(jnp.zeros((1, 2)), jnp.array([1]))  # y = (1/2, 1/2), d = (0, 1)
        Array([[ 0.5, -0.5]], dtype=float32)
        """,
    ),
    Item(
        "one-hot target of five classes, or its label",
        "losses.softmax_cross_entropy",
        """
        >>> z, onehot = jnp.array([[0.0, 2.0, 1.0, 0.0, 0.0]]), jnp.eye(5)[jnp.array([1])]
        >>> losses.softmax_cross_entropy(z, onehot) == losses.softmax_cross_entropy(z, jnp.array([1]))
        Array([ True], dtype=bool)
        """,
    ),
    Item(
        "is a digit a two: one sigmoid output, or two softmax outputs",
        "losses.sigmoid_binary_cross_entropy, losses.softmax_cross_entropy",
        """
        >>> z = jnp.array([1.5])  # the logit of "yes", or the difference of two
        >>> one = losses.sigmoid_binary_cross_entropy(z, jnp.ones(1))
        >>> jnp.allclose(one, losses.softmax_cross_entropy(jnp.stack([0 * z, z], axis=1), jnp.array([1])))
        Array(True, dtype=bool)
        """,
    ),
    Item("which digit: argmax over the outputs", "metrics.predicted_class"),
    Item("Kullback-Leibler divergence", "losses.kl_divergence"),
    Item("derivative of KL divergence in the log-probabilities", "losses.kl_divergence_grad"),
    Item("entropy", "losses.entropy"),
    Item(
        "cross-entropy = KL divergence + entropy",
        "losses.cross_entropy, losses.kl_divergence, losses.entropy",
        """
        >>> y, d = jnp.array([[0.7, 0.2, 0.1]]), jnp.array([[0.5, 0.5, 0.0]])
        >>> jnp.allclose(losses.cross_entropy(y, d), losses.kl_divergence(jnp.log(y), d) + losses.entropy(d))
        Array(True, dtype=bool)
        """,
    ),
    Item(
        "least divergence, 0, where outputs equal targets",
        "losses.kl_divergence",
        """
        >>> d = jnp.array([[0.5, 0.3, 0.2]])
        >>> [losses.kl_divergence(jnp.log(jnp.array([y])), d).item() for y in ([0.5, 0.3, 0.2], [0.4, 0.4, 0.2])]
        [0.0, 0.0252...]
        """,
    ),
    Item(
        "same gradient of KL divergence and cross-entropy, so the same minimum",
        "losses.kl_divergence, losses.cross_entropy",
        """
        >>> y, d = jnp.array([[0.7, 0.2, 0.1]]), jnp.array([[0.5, 0.3, 0.2]])
        >>> slope = jax.grad(lambda y: losses.kl_divergence(jnp.log(y), d)[0])(y)
        >>> jnp.allclose(slope, losses.cross_entropy_grad(y, d))
        Array(True, dtype=bool)
        """,
    ),
    Item("squared error and cross-entropy on a saturated sigmoid", "classic.saturation.descend", figure="saturation"),
    Item("slopes of squared error and cross-entropy at a logit", "classic.saturation.slopes", figure="saturation"),
    Item("square loss of a margin", "losses.square_loss", figure="losses"),
    Item("hinge loss", "losses.hinge", figure="losses"),
    Item("perceptron loss", "losses.perceptron_loss", figure="losses"),
    Item("logistic loss, log(1 + e^(-d f))", "losses.logistic", figure="losses"),
    Item("large margin with several classes", "losses.multiclass_hinge"),
    Item("squared penalty, C + lambda w'w", "losses.l2"),
    Item("absolute penalty", "losses.l1"),
    Item("penalties of both kinds together", "losses.elastic"),
    Item(
        "regularized loss of a network",
        "train.mean_loss, losses.l2",
        """
        >>> loss = train.mean_loss(models.linear(1), losses.half_squared_error, regularizer=losses.l2(0.1))
        >>> params = ((), {"w": jnp.array([[2.0]]), "b": jnp.zeros(1)})
        >>> loss(params, (), jnp.ones((1, 1)), jnp.ones((1, 1)))[0]  # 1/2 (2 - 1)^2 + 0.1 2^2
        Array(0.9, dtype=float32)
        """,
    ),
)
