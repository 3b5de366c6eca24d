"""Boolean networks and regions of the plane."""

from jaxnn.gallery.items.base import Item

SIGNS = ">>> signs = [[-1, -1], [-1, 1], [1, -1], [1, 1]]\n"

ITEMS = (
    Item("AND by one threshold unit", "classic.gates.and_"),
    Item("OR by one threshold unit", "classic.gates.or_"),
    Item("NOT by one threshold unit", "classic.gates.not_"),
    Item("NAND by one threshold unit", "classic.gates.nand"),
    Item("threshold unit with chosen weights", "classic.gates.unit"),
    Item(
        "OR of -1 and +1",
        "classic.threshold.bipolar, classic.gates.or_",
        SIGNS + ">>> threshold.bipolar(gates.or_())(signs).ravel()\nArray([-1.,  1.,  1.,  1.], dtype=float32)",
    ),
    Item(
        "AND of -1 and +1",
        "classic.threshold.bipolar, classic.gates.and_",
        SIGNS + ">>> threshold.bipolar(gates.and_())(signs).ravel()\nArray([-1., -1., -1.,  1.], dtype=float32)",
    ),
    Item("XOR by three units, OR of two ANDs", "classic.gates.xor", figure="xor-regions"),
    Item("XOR of -1 and +1", "classic.threshold.bipolar", figure="xor-regions"),
    Item(
        "truth table of XOR, A'B + AB'",
        "classic.boolean.truth_table, classic.minimize.text",
        """
        >>> table = boolean.truth_table(gates.xor(), 2)
        >>> table.astype(int), minimize.text(minimize.minimize(table))
        (array([0, 1, 1, 0]), "A'B + AB'")
        """,
    ),
    Item("sigmoids in place of thresholds", "classic.threshold.soften", figure="xor-regions"),
    Item("any Boolean function by one hidden layer: disjunctive normal form", "classic.boolean.dnf"),
    Item("one network for all Boolean functions of n inputs", "classic.boolean.lookup_params"),
    Item("OR of ANDs", "classic.gates.or_of_ands"),
    Item(
        "hidden units exponential in the inputs",
        "classic.parity.dnf",
        """
        >>> [parity.dnf(n).units - 1 for n in (2, 4, 8, 12)]  # 2^(n - 1)
        [2, 8, 128, 2048]
        """,
        figure="parity-wide-and-deep",
    ),
    Item("fewer hidden units by minimization", "classic.boolean.minimized", figure="karnaugh"),
    Item("minimization by Quine and McCluskey", "classic.minimize.minimize", figure="karnaugh"),
    Item(
        "function of five inputs: six true rows, five terms",
        "classic.boolean.dnf, classic.boolean.minimized",
        """
        >>> table = np.isin(np.arange(32), [6, 11, 12, 17, 23, 25])  # 10001 and 11001 differ in one input
        >>> boolean.dnf(table).units - 1, boolean.minimized(table).units - 1
        (6, 5)
        """,
    ),
    Item("fewest terms, proved", "classic.minimize.minimize_exactly"),
    Item("prime implicants", "classic.minimize.prime_implicants"),
    Item("Karnaugh map and its terms", figure="karnaugh"),
    Item(
        "rows of a truth table left open",
        "classic.minimize.minimize",
        """
        >>> minimize.text(minimize.minimize([0, 1, 0, 0], dont_care=[0, 0, 0, 1]))  # A'B or B
        'B'
        """,
    ),
    Item(
        "parity as the worst case: no two true rows are neighbours",
        "classic.parity.table, classic.minimize.minimize",
        """
        >>> len(minimize.minimize(parity.table(4))), 2 ** (4 - 1)
        (8, 8)
        """,
        figure="parity-wide-and-deep",
    ),
    Item("half-plane by one unit", "classic.regions.half_plane", figure="pentagons"),
    Item("sides of a polygon as half-planes", "classic.regions.sides, classic.regions.regular_polygon"),
    Item("convex polygon: AND of half-planes", "classic.regions.polygon", figure="pentagons"),
    Item(
        "number of half-planes of a pentagon that contain a point: 5, 4, 3",
        "classic.regions.sides",
        """
        >>> normals, offsets = regions.sides(regions.regular_polygon(5))
        >>> points = np.array([[0.0, 0.0], [0.9, 0.5], [1.5, 0.0]])
        >>> (points @ normals.T + offsets >= 0).sum(axis=1)
        array([5, 4, 3])
        """,
        figure="pentagons",
    ),
    Item("union of polygons: OR of ANDs", "classic.regions.union", figure="pentagons"),
    Item("polygons mirrored in a common side", "classic.regions.mirrored", figure="pentagons"),
    Item(
        "half-plane, convex region, any region: one, two, three layers",
        "classic.regions.half_plane, classic.regions.polygon, classic.regions.union",
        """
        >>> pentagon = regions.regular_polygon(5)
        >>> two = regions.union([pentagon, regions.mirrored(pentagon, 0)])
        >>> regions.half_plane([1, 1], 0).layers, regions.polygon(pentagon).layers, two.layers
        (1, 2, 3)
        """,
        figure="pentagons",
    ),
    Item("any region by one hidden layer", "classic.regions.one_hidden_layer", figure="pentagons"),
    Item("decision regions of OR and AND, and none for XOR", "plots.regions", figure="or-and-xor"),
    Item("cliff of a sigmoid unit, moved, turned and steepened", figure="sigmoid-cliff"),
    Item("Boolean functions of two inputs by real perceptrons", figure="boolean-units"),
    Item(
        "share of Boolean functions that one unit computes",
        "classic.separability.boolean_functions",
        figure="one-unit-share",
    ),
    Item("Boolean formula, parsed", "classic.formulas.parse"),
    Item("several outputs that share terms", "classic.boolean.shared", figure="seven-segments"),
    Item("Karnaugh map of one's own function", "plots.karnaugh", figure="karnaugh-maps"),
    Item("parity as a checkerboard", figure="karnaugh-parity"),
    Item("regions of one, two and three layers", figure="layers-and-regions"),
    Item("polyhedron, open or of more dimensions", "classic.regions.polyhedron"),
)
