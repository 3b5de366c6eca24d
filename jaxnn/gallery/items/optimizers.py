"""Update rules, landscapes and games of two players."""

from jaxnn.gallery.items.base import Item

ITEMS = (
    Item("sign step", "optim.sign_sgd", figure="optimizers"),
    Item("plateau", "landscapes.plateau", figure="optimizers"),
    Item("saddle point", "landscapes.saddle"),
    Item("Schwefel's function of many local minima", "landscapes.schwefel", figure="basins"),
    Item("momentum", "optim.sgd", figure="optimizers"),
    Item("Nesterov's momentum, gradient at the look-ahead point", "optim.nesterov_lookahead"),
    Item(
        "Nesterov's momentum at the parameters",
        "optim.sgd",
        """
        >>> opt = optim.sgd(0.1, momentum=0.9, nesterov=True)
        >>> opt.update(jnp.array([1.0]), opt.init(jnp.zeros(1)))[0]  # -0.1 (1 + 0.9)
        Array([-0.19], dtype=float32)
        """,
    ),
    Item("Adagrad as published", "optim.adagrad_as_published"),
    Item("Adagrad with an initial accumulator", "optim.adagrad"),
    Item("Adadelta", "optim.adadelta"),
    Item("RMSprop", "optim.rmsprop", figure="optimizers"),
    Item("Adam", "optim.adam", figure="optimizers"),
    Item("AdaMax", "optim.adamax"),
    Item("Nadam", "optim.nadam"),
    Item("trajectories of optimizers compared", figure="optimizers"),
    Item("min-max objective of two players", "train.minmax.zero_sum"),
    Item("simultaneous descent and ascent", "train.minmax.simultaneous", figure="bilinear"),
    Item("alternating descent and ascent", "train.minmax.alternating", figure="bilinear"),
    Item("extragradient step", "train.minmax.extragradient", figure="bilinear"),
    Item("game that does not converge: spiral outward", "train.minmax.play", figure="bilinear"),
    Item("training of a GAN", "classic.gan.run, classic.gan.non_saturating", figure="gan-samples"),
    Item("modes that a GAN finds, by training rule", "classic.gan.coverage", figure="gan-coverage"),
    Item("momentum and Nesterov's step as vectors", "plots.arrow", figure="momentum-vectors"),
    Item("Adagrad's rate dies, RMSprop's does not", figure="adagrad-rate"),
)
