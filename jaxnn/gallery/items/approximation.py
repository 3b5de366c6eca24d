"""Approximation, width and depth."""

from jaxnn.gallery.items.base import Item

ITEMS = (
    Item("square pulse from two thresholds", "classic.approximation.pulses"),
    Item("pulse between any two thresholds T1 and T2", "classic.approximation.pulses"),
    Item("continuous function by one hidden layer: staircase", "classic.approximation.staircase", figure="staircase"),
    Item(
        "narrower pulses, smaller error",
        "classic.approximation.staircase",
        """
        >>> [approximation.staircase(np.sin, 0, np.pi, tolerance).units for tolerance in (0.2, 0.1, 0.05)]
        [4, 10, 20]
        """,
        figure="staircase",
    ),
    Item("ridge from two opposite thresholds", "classic.approximation.ridge", figure="ridge-bump-surface"),
    Item("bump from crossed ridges", "classic.approximation.bump", figure="ridge-bump-surface"),
    Item("surface as a sum of bumps: two hidden layers", "classic.approximation.surface", figure="ridge-bump-surface"),
    Item("universal approximation by training: error against width", "classic.width.approximate", figure="width"),
    Item("one hidden layer with a linear output", "classic.width.network"),
    Item("truth table of parity", "classic.parity.table"),
    Item(
        "parity by a wide layer: (N + 2) 2^(N-1) weights, and a bias",
        "classic.parity.dnf",
        figure="parity-wide-and-deep",
    ),
    Item("parity by N counting units", "classic.parity.counter", figure="parity-wide-and-deep"),
    Item(
        "parity by a chain: 3 (N - 1) units, 9 (N - 1) weights", "classic.parity.chain", figure="parity-wide-and-deep"
    ),
    Item("parity by a tree: 2 log2 N layers", "classic.parity.tree", figure="parity-wide-and-deep"),
    Item(
        "depth against width: units for the parity of 16 bits",
        "classic.parity.tree, classic.parity.dnf",
        """
        >>> (parity.tree(16).units, parity.tree(16).layers), (parity.dnf(16).units, parity.dnf(16).layers)
        ((45, 8), (32769, 2))
        """,
        figure="parity-wide-and-deep",
    ),
    Item(
        "depth in layers of weights, and number of units",
        "classic.threshold.Network",
    ),
    Item("linear layers that stay linear, drawn", figure="linear-layers"),
)
