"""Training in practice, and generalization."""

from jaxnn.gallery.items.base import Item

ITEMS = (
    Item("training of a network to the end", "train.fit"),
    Item("training epoch by epoch", "train.epochs"),
    Item("one training step", "train.make_step"),
    Item("one epoch of mini-batches", "train.make_epoch"),
    Item("error on a test set", "train.evaluate, metrics.error_rate"),
    Item("under-fitting, over-fitting or good: diagnosis and remedies", "train.diagnose"),
    Item("over-fitting: training error falls, validation error rises", figure="early-stopping"),
    Item("early stopping", "train.EarlyStopping, classic.generalization.early_stopping", figure="early-stopping"),
    Item("effect of early stopping on the embedded digits", "classic.generalization.stopped", figure="early-stopping"),
    Item("weight decay", "losses.l2, classic.generalization.weight_decay", figure="regularizers"),
    Item("dropout", "layers.dropout.apply, layers.Dropout, classic.generalization.dropout", figure="regularizers"),
    Item("augmentation of images", "data.augment.affine, classic.generalization.augmentation", figure="regularizers"),
    Item("shifted training images", "data.augment.shift", figure="regularizers"),
    Item("ensemble of networks", "train.ensemble, classic.generalization.ensembles", figure="regularizers"),
    Item("four regularizers compared", figure="regularizers"),
    Item(
        "batch normalization",
        "layers.batch_norm.apply, layers.BatchNorm, classic.generalization.batch_norm",
        figure="batch-norm",
    ),
    Item(
        "number of hidden units chosen on a validation split",
        "classic.generalization.hidden_units",
        figure="hidden-units",
    ),
    Item("over-fitting with many units, under-fitting with few", figure="hidden-units"),
    Item("training, validation and test split", "data.split, data.load"),
    Item("search over learning rates and seeds", "train.sweep"),
    Item("small random initial weights", "initializers.normal, initializers.uniform"),
    Item("initial weights scaled by the inputs of a unit", "initializers.glorot_uniform, initializers.he_normal"),
    Item("equal initial weights never part", "classic.symmetry.run, classic.symmetry.spread", figure="symmetry"),
    Item(
        "another seed, another network",
        "models.mlp, train.ensemble",
        """
        >>> net = models.mlp([2, 3, 1])
        >>> w = [net.init(jax.random.key(seed), (2,))[0][1]["w"] for seed in (0, 1)]
        >>> bool((w[0] == w[1]).any())
        False
        """,
    ),
    Item("freezing of a part of the weights", "optim.freeze"),
    Item("training continued from given weights", "train.fit, train.init"),
    Item("number of examples", "classic.examples_needed.by_size", figure="examples-needed"),
    Item("depth, with and without residual connections", "classic.depth.by_depth", figure="depth"),
    Item("types of layers", "classic.layer_types.by_type", figure="layer-types"),
    Item("pre-training on a related task", "classic.transfer.by_size", figure="transfer"),
    Item("denoising autoencoder", "classic.denoising.by_level", figure="denoising"),
)
