"""Backpropagation and the chain rule."""

from jaxnn.gallery.items.base import Item

ITEMS = (
    Item("every z, a, delta and gradient of a network", "backprop.trace_table"),
    Item(
        "cotangent of the last layer, delta = s'(z) dC/da",
        "backprop.trace_table",
        """
        >>> unit, params = models.serial(layers.Dense(1), layers.Sigmoid), {"w": jnp.ones((1, 1)), "b": jnp.zeros(1)}
        >>> x, d = jnp.zeros((1, 1)), jnp.ones((1, 1))
        >>> steps = backprop.trace_table(unit, (params, ()), (), x, d, losses.half_squared_error)
        >>> steps["delta1"]  # s' = 1/4, y - d = -1/2
        Array([[-0.125]], dtype=float32)
        """,
    ),
    Item(
        "cotangent of a layer from the next, delta = s'(z) W' delta",
        "backprop.trace_table",
        """
        >>> two, net = {"w": 2 * jnp.ones((1, 1)), "b": jnp.zeros(1)}, models.mlp([1, 1, 1], activation=layers.Tanh)
        >>> params, x, d = ((), two, (), two), jnp.zeros((1, 1)), jnp.ones((1, 1))
        >>> steps = backprop.trace_table(net, params, (), x, d, losses.half_squared_error)
        >>> steps["delta2"], steps["delta1"]  # y - d = -1, and tanh'(0) 2 (-1)
        (Array([[-1.]], dtype=float32), Array([[-2.]], dtype=float32))
        """,
    ),
    Item(
        "gradient of weights, a' delta, and of biases, delta",
        "ops.matmul.linear_weight_grad, ops.matmul.bias_grad",
        """
        >>> a, delta = jnp.array([[1.0, 2.0]]), jnp.array([[10.0, 20.0, 30.0]])
        >>> ops.matmul.linear_weight_grad(a, delta), ops.matmul.bias_grad(delta)
        (Array([[10., 20., 30.],
                [20., 40., 60.]], dtype=float32), Array([10., 20., 30.], dtype=float32))
        """,
    ),
    Item("cotangent through a matrix product, delta W'", "ops.matmul.linear_input_grad"),
    Item("gradient of all weights and biases by hand-derived rules", "backprop.value_and_grad"),
    Item("layers that have a hand-derived rule", "backprop.coverage, backprop.rule_of"),
    Item("backward rule of a layer of one's own", "backprop.Rule, backprop.register"),
    Item("forward pass of a network", "models.serial"),
    Item(
        "forward pass, operation by operation",
        "layers.dense.apply, activations.sigmoid",
        """
        >>> params = {"w": jnp.eye(2), "b": jnp.array([0.0, -1.0])}
        >>> activations.sigmoid(layers.dense.apply(params, jnp.array([[0.0, 1.0]])))
        Array([[0.5, 0.5]], dtype=float32)
        """,
    ),
    Item(
        "gradient of one sigmoid unit, 2 (s - y) s (1 - s) x",
        "activations.sigmoid",
        """
        >>> w, x, y = jnp.array(0.5), 2.0, 1.0
        >>> s = activations.sigmoid(w * x)
        >>> jnp.allclose(jax.grad(lambda w: (activations.sigmoid(w * x) - y) ** 2)(w), 2 * (s - y) * s * (1 - s) * x)
        Array(True, dtype=bool)
        """,
    ),
    Item("update of one weight", "classic.adaline.smallest_step"),
    Item("update of one weight and one bias", "classic.adaline.two_parameter_step"),
    Item(
        "derivative of the smallest network, -(y - w x) x",
        "losses.half_squared_error_grad",
        """
        >>> w, x, y = jnp.array(0.5), jnp.array([2.0]), jnp.array([3.0])
        >>> losses.half_squared_error_grad(w * x, y) * x, jax.grad(lambda w: (y[0] - w * x[0]) ** 2 / 2)(w)
        (Array([-4.], dtype=float32), Array(-4., dtype=float32, weak_type=True))
        """,
    ),
    Item(
        "chain of units: factors of the derivative, each used again",
        "backprop.trace_table",
        """
        >>> chain = models.serial(*[layers.Dense(1), layers.Sigmoid] * 3)
        >>> unit, x, d = {"w": jnp.ones((1, 1)), "b": jnp.zeros(1)}, jnp.zeros((1, 1)), jnp.ones((1, 1))
        >>> steps = backprop.trace_table(chain, (unit, ()) * 3, (), x, d, losses.half_squared_error)
        >>> jnp.allclose(steps["delta1"], steps["delta2"] * activations.sigmoid_derivative(steps["z1"]))
        Array(True, dtype=bool)
        """,
    ),
    Item(
        "chain rule over two paths: their derivatives add",
        "models.residual",
        """
        >>> net, params = models.residual(layers.Dense(1)), (({"w": jnp.array([[3.0]]), "b": jnp.zeros(1)},), ())
        >>> jax.grad(lambda x: net.predict(params, (), x)[0, 0])(jnp.ones((1, 1)))  # 1 + w
        Array([[4.]], dtype=float32)
        """,
    ),
    Item(
        "sensitivity of the loss to each weight",
        "backprop.value_and_grad",
        """
        >>> vg = backprop.value_and_grad(models.linear(1), losses.half_squared_error)
        >>> params, x = ((), {"w": jnp.array([[0.5], [0.5]]), "b": jnp.zeros(1)}), jnp.array([[1.0, 9.0]])
        >>> vg(params, (), x, jnp.zeros((1, 1)))[1][1]["w"].ravel()  # (y - d) x: nine times that of the first
        Array([ 5., 45.], dtype=float32)
        """,
    ),
    Item("backpropagation for every example apart", "backprop.record, per_example.norms"),
    Item("derivative by which an activation passes a cotangent", figure="activations"),
    Item("computational graph of a scalar chain", "plots.computational_graph", figure="computational-graph"),
    Item("backpropagation in numbers: XOR by two hidden units", figure="backpropagation-xor"),
    Item("sensitivity of the cost to each weight", figure="sensitivity"),
    Item("derivative from one-sided differences", "backprop.differences.one_sided", figure="finite-differences"),
    Item("derivative from central differences", "backprop.differences.central", figure="finite-differences"),
    Item("derivative by a complex step", "backprop.differences.complex_step", figure="finite-differences"),
    Item("gradient checked by finite differences", "backprop.check_gradient", figure="finite-differences"),
    Item("backward rule of one's own layer, checked", "backprop.check_rule"),
)
