"""Units, activations and networks."""

from jaxnn.gallery.items.base import Item

ITEMS = (
    Item("weighted sum with a constant input for the bias", "classic.neurons.with_bias"),
    Item("McCulloch-Pitts unit: threshold, inhibition", "classic.neurons.mcculloch_pitts"),
    Item(
        "single unit: activation of w.x + b",
        "models.serial, layers.Dense, layers.Sigmoid",
        """
        >>> unit, params = models.serial(layers.Dense(1), layers.Sigmoid), {"w": jnp.array([[2.0], [-1.0]])}
        >>> params["b"] = jnp.array([1.0])
        >>> unit.predict((params, ()), (), jnp.array([[1.0, 3.0], [0.0, 0.0]])).ravel()  # sigmoid of 0 and 1
        Array([0.5      , 0.7310586], dtype=float32)
        """,
    ),
    Item("sign with sign(0) = 0", "activations.sign"),
    Item("sign of the perceptron, sign(0) = +1", "activations.perceptron_sign"),
    Item("unit step (Heaviside), its value at 0 chosen", "activations.heaviside"),
    Item("linear unit", "activations.linear, layers.Identity"),
    Item("piecewise linear unit", "activations.piecewise_linear"),
    Item("sigmoid", "activations.sigmoid, layers.Sigmoid", figure="activations"),
    Item("derivative of the sigmoid, s (1 - s)", "activations.sigmoid_derivative"),
    Item("tanh", "activations.tanh, layers.Tanh", figure="activations"),
    Item("derivative of tanh, 1 - tanh^2", "activations.tanh_derivative"),
    Item("ReLU", "activations.relu, layers.Relu", figure="activations"),
    Item("derivative of ReLU, 0 at the kink", "activations.relu_derivative"),
    Item("softplus", "activations.softplus, layers.Softplus"),
    Item("derivative of softplus, the sigmoid", "activations.softplus_derivative"),
    Item("derivative of any activation", "activations.derivative_of, activations.DERIVATIVES"),
    Item("activation with a fixed parameter", "layers.Activation, activations.leaky_relu"),
    Item("activation with a slope that is learned: PReLU", "layers.PRelu, layers.Swish"),
    Item("activation with learned parameters of one's own", "layers.Parametric"),
    Item("range, boundedness and monotony of an activation, derivative at 0", "activations.properties"),
    Item("activations and their derivatives drawn", figure="activations"),
    Item("softmax without overflow", "activations.softmax, layers.Softmax"),
    Item("softmax as an activation of a whole layer: its Jacobian", "activations.softmax_jvp, activations.softmax_vjp"),
    Item("fully connected layer, y = x w + b with w (in, out)", "layers.dense.apply, ops.matmul.linear"),
    Item("weights and biases of a layer", "layers.dense.init, layers.Dense"),
    Item(
        "weight between two units: w[input, unit]",
        "layers.dense.apply",
        """
        >>> w = jnp.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
        >>> layers.dense.apply({"w": w}, jnp.array([0.0, 1.0, 0.0])), w[1]  # from input 1 to both units
        (Array([3., 4.], dtype=float32), Array([3., 4.], dtype=float32))
        """,
    ),
    Item("multi-layer perceptron", "models.mlp"),
    Item("feed-forward network: composition of layers", "models.serial"),
    Item(
        "network as a function from R^N to R^M",
        "models.mlp",
        """
        >>> params, state = models.mlp([2, 8, 3]).init(jax.random.key(0), (2,))
        >>> models.mlp([2, 8, 3]).predict(params, state, jnp.ones((5, 2))).shape
        (5, 3)
        """,
    ),
    Item("network as a directed acyclic graph: parallel branches", "models.parallel"),
    Item("residual block", "models.residual"),
    Item("linear model", "models.linear"),
    Item(
        "linear layers without activation collapse to one",
        "models.serial, layers.Identity",
        """
        >>> params, _ = (net := models.mlp([2, 9, 9, 1], activation=layers.Identity)).init(jax.random.key(0), (2,))
        >>> w = params[1]["w"] @ params[3]["w"] @ params[5]["w"]
        >>> jnp.allclose(net.predict(params, (), x := jnp.ones((4, 2))), x @ w, atol=1e-5)
        Array(True, dtype=bool)
        """,
    ),
    Item(
        "number of weights and biases: 20 + 6 in a 3-4-2 network",
        "models.mlp, models.summary, tree.size",
        """
        >>> tree.size(models.mlp([3, 4, 2]).init(jax.random.key(0), (3,))[0])
        26
        """,
    ),
    Item(
        "digits by 784 inputs, hidden units, 10 outputs: table of layers",
        "models.summary",
        """
        >>> total = models.summary(models.mlp([784, 30, 10]), (784,))
        layer    output  parameters  FLOPs
        -------  ------  ----------  ------
        (input)  (784,)           0       0
        flatten  (784,)           0       0
        dense    (30,)       23,550  47,040
        relu     (30,)            0       0
        dense    (10,)          310     600
        -------  ------  ----------  ------
        total                23,860  47,640
        """,
    ),
    Item(
        "parameters theta as one pytree, and as one vector",
        "tree.pack, tree.size",
        """
        >>> vector, back = tree.pack({"w": jnp.ones((2, 2)), "b": jnp.zeros(2)})
        >>> vector["float32"], back(vector)["b"]
        (Array([0., 0., 1., 1., 1., 1.], dtype=float32), Array([0., 0.], dtype=float32))
        """,
    ),
    Item("convolutional network: convolution, pooling, dense layers", "models.cnn"),
    Item("generative adversarial network: generator and discriminator", "classic.gan.make"),
    Item(
        "labelled diagram: units a_j, weights w_jk and biases b_j of each layer",
        "plots.network",
        figure="network-notation",
    ),
    Item("network of digits with its activations for one image", figure="digit-network"),
    Item("weights of a hidden layer as images", "plots.templates", figure="hidden-templates"),
    Item("Hopfield network: recall of stored patterns", "classic.hopfield.recall", figure="hopfield"),
    Item(
        "Hopfield network: energy, and the capacity of 0.138 N patterns",
        "classic.hopfield.energy, classic.hopfield.critical_load",
    ),
    Item(
        "restricted Boltzmann machine by contrastive divergence",
        "classic.boltzmann.contrastive_divergence",
        figure="boltzmann-machine",
    ),
    Item("exact likelihood of a small Boltzmann machine", "classic.boltzmann.log_likelihood"),
    Item("radial basis network", "classic.radial.fit", figure="radial-basis"),
    Item("kernel machine: support vectors", "classic.kernel.support", figure="kernel-machines"),
    Item("kernel perceptron and kernel ridge regression", "classic.kernel.perceptron, classic.kernel.ridge"),
    Item("self-organizing map", "classic.kohonen.update", figure="kohonen-map"),
    Item("echo-state reservoir", "classic.reservoir.states", figure="echo-state"),
    Item("spiking unit: leaky integrate-and-fire", "classic.spiking.simulate", figure="spiking-unit"),
)
