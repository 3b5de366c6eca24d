"""Perceptrons, and what one unit separates."""

from jaxnn.gallery.items.base import Item

BITS = ">>> x = neurons.with_bias([[0, 0], [0, 1], [1, 0], [1, 1]])\n"

ITEMS = (
    Item("linear classifier, +1 or -1", "classic.perceptron.predict"),
    Item("perceptron rule on one example", "classic.perceptron.update"),
    Item(
        "perceptron rule by hand: w = 0, x = (1, -1), y = -1",
        "classic.perceptron.update",
        """
        >>> perceptron.update(jnp.zeros(2), jnp.array([1.0, -1.0]), jnp.array(-1.0))[0]  # sign(0) = +1: a mistake
        Array([-1.,  1.], dtype=float32)
        """,
    ),
    Item("weights and bias learned from pairs (x, y)", "classic.perceptron.fit", figure="perceptron-learning"),
    Item("every step of the perceptron", "classic.perceptron.trace", figure="perceptron-learning"),
    Item("geometry of the rule: the line after each mistake", figure="perceptron-learning"),
    Item(
        "AND, OR and NOT learned by one unit each",
        "classic.perceptron.fit",
        BITS
        + """\
>>> [bool(perceptron.fit(x, jnp.array(y)).converged) for y in ([-1, -1, -1, 1], [-1, 1, 1, 1])]
[True, True]
>>> perceptron.predict(perceptron.fit(x[::2, :2], jnp.array([1, -1])).w, x[::2, :2])
Array([ 1., -1.], dtype=float32)
""",
    ),
    Item(
        "convergence on separable examples: Novikoff's bound",
        "classic.perceptron.mistake_bound",
        "",
        "perceptron-bound",
    ),
    Item("margin of a separator", "classic.perceptron.margin"),
    Item("separator by a linear program, or a proof of none", "classic.separability.separate"),
    Item("XOR by no single unit: certificate", "classic.separability.separate", figure="xor-cycle"),
    Item(
        "two equal bits recognized by no single unit: certificate",
        "classic.separability.separate",
        BITS
        + """\
>>> separability.separate(x, np.array([1, -1, -1, 1])).certificate  # both classes have the same mean
array([0.25, 0.25, 0.25, 0.25])
""",
    ),
    Item("cycle of the rule on inseparable examples", "classic.separability.repeated_weights", figure="xor-cycle"),
    Item("pocket algorithm: the best weights so far", "classic.perceptron.pocket"),
    Item("averaged perceptron", "classic.perceptron.averaged"),
    Item("multi-class perceptron: the largest output decides", "classic.multiclass.fit"),
    Item("one unit per class, and a maximum", "classic.multiclass.predict"),
    Item(
        "output units are separate: no weights in common",
        "classic.logistic.gradient, classic.logistic.fit",
        """
        >>> x, y = jnp.array([[1.0, -1.0], [1.0, 2.0]]), jnp.array([[1, -1], [-1, -1]])  # a column per unit
        >>> w = jax.vmap(lambda y: logistic.gradient(jnp.zeros(2), x, y))(y.T)
        >>> w[1] == logistic.gradient(jnp.zeros(2), x, y[:, 1])  # whatever the other unit learns
        Array([ True,  True], dtype=bool)
        """,
    ),
    Item("one update as vectors, and no update without a mistake", figure="perceptron-update"),
)
