"""SM3, against optax, which takes no scalars: the pytree holds matrices. Its sums are compared in the tests."""

import optax

from jaxnn.compare.parity import Case

CASES: dict[str, Case] = {
    "scale_by_sm3": Case(
        lambda library: library.scale_by_sm3(), lambda: optax.scale_by_sm3(), fields={"mu": ""}, matrices=True
    ),
    "scale_by_sm3: b2 and eps": Case(
        lambda library: library.scale_by_sm3(0.5, 0.9, 1e-2),
        lambda: optax.scale_by_sm3(0.5, 0.9, 1e-2),
        fields={"mu": ""},
        matrices=True,
    ),
    "sm3": Case(lambda library: library.sm3(0.1), lambda: optax.sm3(0.1), fields={"mu": ""}, matrices=True),
    "sm3: no momentum": Case(
        lambda library: library.sm3(0.1, momentum=None),
        lambda: optax.sm3(0.1, momentum=0.0),
        "momentum=None and 0.0 keep no nu here; optax fails on None, and for 0.0 keeps a nu that equals the direction",
        fields={"mu": ""},
        matrices=True,
    ),
}
