"""Texts to learn language from: one in the package, tiny-shakespeare by folder, cache or mirror."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path

from jaxnn.checks import count_of, require_between
from jaxnn.data.packed import name_of, opened, read_up_to, require_sha256
from jaxnn.data.sources import Source, file_in, local_folder, locate
from jaxnn.files import PLAIN_SIZE


def read_text(source: str | os.PathLike[str] | bytes, *, sha256: str | None = None) -> str:
    """The text in a UTF-8 file, raw or gzip-compressed, of at most 64 MiB; its line ends are kept.

    Args:
        source: a path, or the bytes of a file.
        sha256: the expected SHA-256 of the uncompressed bytes, 64 hexadecimal digits; None leaves it unchecked.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: not UTF-8, a damaged gzip stream, a wrong checksum, more than 64 MiB.
    """
    where = f"read_text: {name_of(source)}"
    with opened(where, source) as (stream, _):
        content = read_up_to(stream, PLAIN_SIZE + 1)
    if len(content) > PLAIN_SIZE:
        raise ValueError(f"{where}: holds more than {PLAIN_SIZE} bytes. Cut it, or read it by other means.")
    require_sha256(where, content, sha256)
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{where}: is not UTF-8 ({error}). Convert it.") from None


TINY_SHAKESPEARE = Source(
    "tinyshakespeare",
    ("https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/",),
    ("86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",),
    files=("input.txt",),
    suffix="",
    read=read_text,
)


def embedded() -> str:
    """The text in the package: Shakespeare's "Coriolanus" to the end of act IV, scene 2, 101,640 characters of ASCII.

    It is the beginning of `tiny_shakespeare`, 61 of its 65 different characters. Its source is in `shakespeare.txt`
    beside the file; it is in the public domain.

    Example:
        >>> text = embedded()
        >>> len(text), text[:14]
        (101640, 'First Citizen:')

    Reference: Shakespeare, W. (about 1608). Coriolanus. Karpathy, A. (2015). The unreasonable effectiveness of
        recurrent neural networks.
    """
    return read_text(resources.files("jaxnn.data.text").joinpath("shakespeare.gz").read_bytes())


def tiny_shakespeare(folder: str | os.PathLike[str] | None = None) -> str:
    """Tiny-shakespeare: 40,000 lines of Shakespeare's plays, 1,115,394 characters, 65 different ones.

    The file input.txt is read from `folder`, or, if it is None, from the first of `$JAXNN_DATA/tinyshakespeare`,
    `~/.cache/jaxnn/tinyshakespeare`, a public mirror (then cached). It is checked against its SHA-256.

    Args:
        folder: of the file; None for the places above.

    Returns:
        The text; `split` holds out its last tenth.

    Raises:
        FileNotFoundError: `folder` lacks the file, or it was not found and could not be downloaded; the message says
            what to put where.
        ValueError: the file that was found is damaged.
        UnwrittenError: the cache could not be written.

    Example:
        >>> text = tiny_shakespeare()  # doctest: +SKIP

    Reference: Karpathy, A. (2015). The unreasonable effectiveness of recurrent neural networks.
    """
    return _read(locate(TINY_SHAKESPEARE, folder))


def local_tiny_shakespeare() -> str | None:
    """`tiny_shakespeare` if its file is found in `$JAXNN_DATA` or the cache, else None; nothing is downloaded.

    Raises:
        ValueError: the file that was found is damaged.

    Example:
        >>> text = local_tiny_shakespeare() or embedded()
        >>> text[:14]
        'First Citizen:'
    """
    folder = local_folder(TINY_SHAKESPEARE)
    return None if folder is None else _read(folder)


def split(text: str, *, train: float = 0.9) -> tuple[str, str]:
    """The first characters of a text for training, the last for validation: text[:n], text[n:], n = int(train len).

    Args:
        text: L characters.
        train: the fraction for training, in (0, 1).

    Returns:
        (training text, validation text); for tiny-shakespeare 1,003,854 and 111,540 characters, as in nanoGPT.

    Raises:
        TypeError: text is not a string.
        ValueError: a fraction out of range, or a part would be empty.

    Example:
        >>> split("To be, or not to be")
        ('To be, or not to ', 'be')
    """
    if not isinstance(text, str):
        raise TypeError(f"split: text must be a string, got {type(text).__name__}. Encode its parts after the split.")
    require_between("split", "train", train, 0, 1)
    n = int(train * len(text))
    if not 0 < n < len(text):
        raise ValueError(
            f"split: a part would be empty, got train={train:g} for {count_of(len(text), 'character')}. Pass a longer "
            "text."
        )
    return text[:n], text[n:]


def _read(folder: Path) -> str:
    """The checked text in a folder that has its file."""
    (file,), (sha256,) = TINY_SHAKESPEARE.files, TINY_SHAKESPEARE.sha256
    return TINY_SHAKESPEARE.read(file_in(folder, file) or folder / file, sha256=sha256)
