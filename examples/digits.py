"""A small network trained on the embedded digits with Adam, and its mistakes on the test set.

python examples/digits.py
"""

import jax

from jaxnn import data, losses, metrics, models, optim, plots, train
from jaxnn.activations import softmax


def main() -> None:
    digits = data.load("digits")
    net = models.mlp([64, 128, 10])
    models.summary(net, (8, 8, 1))
    result = train.fit(
        net,
        losses.softmax_cross_entropy,
        optim.adam(3e-3),
        (digits.train.x, digits.train.y),
        key=jax.random.key(0),
        epochs=20,
        batch_size=64,
        validation=(digits.validation.x, digits.validation.y),
        metrics={"error": metrics.error_rate},
    )
    logits = net.predict(result.params, result.state, digits.test.x)
    print(f"test error {float(metrics.error_rate(logits, digits.test.y).mean()):.2%}")
    fig = plots.mistakes(digits.test.x, digits.test.y, softmax(logits), digits.test.classes)
    print("written:", plots.save(fig, "mistakes.png"))


if __name__ == "__main__":
    main()
