"""Images, convolutions and the playground."""

from jaxnn.gallery.items.base import Item

ITEMS = (
    Item(
        "MNIST: 60,000 and 10,000 images of 28 x 28 pixels",
        "data.mnist",
        """
        >>> train, test = data.mnist()
        >>> train.x.shape, test.x.shape
        ((60000, 28, 28, 1), (10000, 28, 28, 1))
        """,
    ),
    Item("embedded digits of 8 x 8 pixels", "data.digits, data.load"),
    Item("digits as 256 binary pixels, ink or none", "data.binarised"),
    Item("classifiers of MNIST compared: linear", command="jaxnn train --recipe mnist-linear"),
    Item("classifiers of MNIST compared: multi-layer perceptron", command="jaxnn train --recipe mnist-mlp"),
    Item("classifiers of digits compared: convolutional network", command="jaxnn train --model cnn --padding SAME"),
    Item("images as vectors", "layers.flatten.apply, layers.Flatten"),
    Item("one-hot word times a matrix: a row of it", "ops.gather.take_rows, layers.Embedding"),
    Item("word as a one-hot row over a vocabulary", "data.text.one_hot"),
    Item("text as a bag of words", "data.text.bag_of_words"),
    Item("sentences of three sentiments", "data.text.reviews"),
    Item("convolution layer", "layers.conv.apply, layers.Conv"),
    Item(
        "7 x 7 image by a 3 x 3 kernel: 5 x 5 outputs",
        "ops.conv.conv",
        """
        >>> ops.conv.conv(jnp.ones((1, 7, 7, 1)), jnp.ones((3, 3, 1, 1)))[0, :, :, 0].shape
        (5, 5)
        """,
    ),
    Item(
        "multiply, add, bias: one output of a convolution",
        "layers.conv.apply",
        """
        >>> image, kernel = jnp.arange(9.0).reshape(1, 3, 3, 1), jnp.eye(3).reshape(3, 3, 1, 1)
        >>> layers.conv.apply({"w": kernel, "b": jnp.array([0.5])}, image).ravel()  # 0 + 4 + 8 + 0.5
        Array([12.5], dtype=float32)
        """,
    ),
    Item(
        "1 x 1 convolution: a dense layer at every position",
        "ops.conv.conv, ops.matmul.linear",
        """
        >>> x, w = jnp.arange(12.0).reshape(1, 2, 2, 3), jnp.arange(6.0).reshape(3, 2)
        >>> jnp.array_equal(ops.conv.conv(x, w[None, None]), ops.matmul.linear(x, w))
        Array(True, dtype=bool)
        """,
    ),
    Item("patches that a kernel scans", "ops.patches.conv_patches"),
    Item(
        "locality and shared weights: 10 parameters in place of 1,250",
        "layers.Conv, layers.Dense, tree.size",
        """
        >>> shared, _ = layers.Conv(1, 3).init(jax.random.key(0), (7, 7, 1))
        >>> full, _ = layers.Dense(25).init(jax.random.key(0), (49,))
        >>> tree.size(shared), tree.size(full)
        (10, 1250)
        """,
    ),
    Item("pooling", "layers.MaxPool, layers.AveragePool"),
    Item("depthwise convolution", "layers.DepthwiseConv"),
    Item("multi-layer perceptron on shifted digits", "classic.shifts.run", figure="shifts"),
    Item(
        "shift of the image, shift of the outputs",
        "ops.conv.conv, classic.shifts.shifted",
        """
        >>> x, w = jnp.zeros((1, 9, 9, 1)).at[0, 4, 4, 0].set(1.0), jnp.arange(9.0).reshape(3, 3, 1, 1)
        >>> jnp.array_equal(ops.conv.conv(shifts.shifted(x, 1, 2), w), shifts.shifted(ops.conv.conv(x, w), 1, 2))
        Array(True, dtype=bool)
        """,
        figure="shifts",
    ),
    Item("maximum over all positions: invariance to shifts", "layers.GlobalMaxPool", figure="shifts"),
    Item("playground with its defaults", command="jaxnn playground"),
    Item("playground: circle", "playground.data.circle", figure="playground-data"),
    Item("playground: exclusive or", "playground.data.xor", figure="playground-data"),
    Item("playground: two Gaussians", "playground.data.gauss", figure="playground-data"),
    Item(
        "playground: spiral",
        "playground.data.spiral",
        figure="playground-spiral",
        command="jaxnn playground --data spiral --features x,y,sinx,siny --hidden 8,8",
    ),
    Item(
        "playground: regression",
        "playground.data.reg_plane, playground.data.reg_gauss",
        figure="playground-data",
    ),
    Item("playground: features of the plane", "playground.features.featurize"),
    Item(
        "playground: layers, units, activation",
        "playground.network",
        command="jaxnn playground --hidden 4,4,2 --activation relu",
    ),
    Item(
        "playground: noise of the data, part for training",
        "playground.Settings",
        command="jaxnn playground --data xor --noise 0.25 --train-ratio 0.3",
    ),
    Item("playground: L1 penalty, whose weights stay at 0", "playground.penalties.sparse_sgd"),
    Item("playground: L2 penalty", "playground.penalties.make_optimizer"),
    Item("playground: losses after every epoch", "playground.run"),
    Item("playground: outputs of hidden units over the plane", "playground.make_views", figure="playground-spiral"),
    Item("playground: colours of outputs, weights and points", "playground.draw", figure="playground-spiral"),
    Item("playground: page with training and test points, which trains on", "playground.render"),
    Item("filter that scans an image", "classic.filters.scan", figure="filter-scan"),
    Item("matrix products against loops", "classic.products.count", figure="matrix-products"),
    Item("intensity and symmetry as features of digits", "classic.features.symmetry", figure="features"),
    Item("features by hand, pixels and learned features", "classic.features.compare", figure="features"),
    Item("hierarchy of learned features", "classic.hierarchy.study", figure="hierarchy"),
)
