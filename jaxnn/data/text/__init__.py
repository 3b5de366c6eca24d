"""Texts: as bags of words for classification, as sequences of characters or bytes for language models.

| names | what they are |
|---|---|
| `words`, `vocabulary`, `one_hot`, `bag_of_words`, `bags` | texts as vectors |
| `reviews`, `SENTIMENTS` | made-up reviews of three sentiments |
| `characters` (`Characters`), `BYTES` (`Bytes`), `from_json` | characters or bytes as tokens 0, 1, ... and back |
| `embedded`, `tiny_shakespeare`, `local_tiny_shakespeare`, `split` | corpora; training and validation part |
| `windows`, `all_windows` | examples for the prediction of the next token: drawn at random, or all in order |
"""

from jaxnn.data.text.corpora import embedded, local_tiny_shakespeare, split, tiny_shakespeare
from jaxnn.data.text.prediction import all_windows, windows
from jaxnn.data.text.sentiments import SENTIMENTS, reviews
from jaxnn.data.text.symbols import BYTES, Bytes, Characters, characters, from_json
from jaxnn.data.text.vectors import bag_of_words, bags, one_hot, vocabulary, words

__all__ = [
    "BYTES",
    "SENTIMENTS",
    "Bytes",
    "Characters",
    "all_windows",
    "bag_of_words",
    "bags",
    "characters",
    "embedded",
    "from_json",
    "local_tiny_shakespeare",
    "one_hot",
    "reviews",
    "split",
    "tiny_shakespeare",
    "vocabulary",
    "windows",
    "words",
]
