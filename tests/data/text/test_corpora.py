"""The text in the package, and finding, fetching, checking and splitting tiny-shakespeare. No network."""

from __future__ import annotations

import gzip
import hashlib
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from jaxnn.data import sources, text
from jaxnn.data.text import corpora

SMALL = "First Citizen:\nBefore we proceed.\r\nÉ\n" * 3


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only file:// addresses open."""

    def local_only(url: str, timeout: float) -> Any:
        if not url.startswith("file:"):
            raise URLError("no network in tests")
        return urlopen(url, timeout=timeout)

    monkeypatch.setattr(sources, "urlopen", local_only)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home folder, and no data folder named."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("JAXNN_DATA", raising=False)
    return tmp_path / "home"


def put(folder: Path, content: bytes = SMALL.encode(), name: str = "input.txt") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def small(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> sources.Source:
    """Tiny-shakespeare replaced by a small text on a mirror in a folder."""
    mirror = put(tmp_path / "mirror").as_uri() + "/"
    sha256 = hashlib.sha256(SMALL.encode()).hexdigest()
    source = corpora.TINY_SHAKESPEARE._replace(mirrors=(mirror,), sha256=(sha256,))
    monkeypatch.setattr(corpora, "TINY_SHAKESPEARE", source)
    return source


def test_the_embedded_text_is_what_its_note_says() -> None:
    found = text.embedded()
    folder = resources.files("jaxnn.data.text")
    note = folder.joinpath("shakespeare.txt").read_text(encoding="utf-8")
    assert hashlib.sha256(found.encode()).hexdigest() in note
    assert f"{len(found):,} characters of ASCII" in note
    for fact in ("Coriolanus", "Public domain", "Karpathy", "2015", "char-rnn"):
        assert fact in note
    assert len(folder.joinpath("shakespeare.gz").read_bytes()) < 50_000
    assert found.startswith("First Citizen:\nBefore we proceed any further, hear me speak.\n\nAll:\nSpeak, speak.\n")
    assert found.endswith("\n\nMENENIUS:\nFie, fie, fie!\n")


def test_tiny_shakespeare_is_the_published_one_and_begins_with_the_embedded_text() -> None:
    found = text.local_tiny_shakespeare()
    if found is None:
        pytest.skip("set JAXNN_DATA to a folder that holds tinyshakespeare/input.txt to check the real file")
    assert (len(found), text.characters(found).size) == (1_115_394, 65)
    assert found.startswith(text.embedded())
    assert found[len(text.embedded())] == "\n"
    # nanoGPT, data/shakespeare_char/readme.md
    assert [len(part) for part in text.split(found)] == [1_003_854, 111_540]


@pytest.mark.parametrize("packed", [True, False])
def test_the_file_is_found_in_the_variable_then_the_cache(
    small: Any, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packed: bool
) -> None:
    assert text.local_tiny_shakespeare() is None
    how = (gzip.compress(SMALL.encode()), "input.txt.gz") if packed else (SMALL.encode(), "input.txt")
    put(home / ".cache" / "jaxnn" / "tinyshakespeare", *how)
    assert text.local_tiny_shakespeare() == SMALL == text.tiny_shakespeare()
    monkeypatch.setenv("JAXNN_DATA", str(tmp_path / "data"))
    put(tmp_path / "data" / "tinyshakespeare", b"damaged")
    for call in (text.local_tiny_shakespeare, text.tiny_shakespeare):
        with pytest.raises(ValueError, match=r"data/tinyshakespeare/input.txt: wrong checksum.*delete it"):
            call()


def test_what_is_nowhere_is_downloaded_once_and_kept(small: Any, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert text.tiny_shakespeare() == SMALL
    assert [p.name for p in (home / ".cache" / "jaxnn" / "tinyshakespeare").iterdir()] == ["input.txt"]
    monkeypatch.setattr(sources, "urlopen", None)  # a second download would fail
    assert text.tiny_shakespeare() == text.local_tiny_shakespeare() == SMALL


def test_a_wrong_download_leaves_nothing_behind(small: Any, home: Path, tmp_path: Path) -> None:
    put(tmp_path / "mirror", SMALL.encode() + b" ")
    with pytest.raises(FileNotFoundError, match="wrong checksum"):
        text.tiny_shakespeare()
    assert not list(home.rglob("input.txt*"))


def test_a_folder_that_is_named_is_the_only_one_looked_in(small: Any, home: Path, tmp_path: Path) -> None:
    put(home / ".cache" / "jaxnn" / "tinyshakespeare")
    with pytest.raises(FileNotFoundError, match=r"empty lacks input.txt \(plain or .gz\)"):
        text.tiny_shakespeare(tmp_path / "empty")
    assert text.tiny_shakespeare(put(tmp_path / "given")) == SMALL


def test_without_file_and_network_the_message_says_what_to_do(home: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        text.tiny_shakespeare()
    for part in (
        "no network in tests",
        "Put the file input.txt (with or without .gz)",
        "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/",
        str(home / ".cache" / "jaxnn" / "tinyshakespeare"),
        "D/tinyshakespeare and set JAXNN_DATA=D",
    ):
        assert part in str(caught.value)


def test_what_is_no_text_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="is not UTF-8"):
        corpora.read_text(b"\xff\xfe")
    with pytest.raises(ValueError, match="cut short or damaged"):
        corpora.read_text(gzip.compress(SMALL.encode())[:-9])
    monkeypatch.setattr(corpora, "PLAIN_SIZE", 10)
    for content in (SMALL.encode(), gzip.compress(SMALL.encode())):
        with pytest.raises(ValueError, match="more than 10 bytes"):
            corpora.read_text(content)


@pytest.mark.parametrize(("length", "train", "first"), [(10, 0.9, 9), (19, 0.9, 17), (2, 0.5, 1), (1001, 0.999, 999)])
def test_a_split_cuts_at_the_whole_part(length: int, train: float, first: int) -> None:
    sample = "".join(chr(97 + i % 26) for i in range(length))
    assert text.split(sample, train=train) == (sample[:first], sample[first:])


def test_a_split_has_two_parts() -> None:
    for sample, train in (("", 0.9), ("a", 0.9), ("abc", 1.0), ("abc", 0.0)):
        with pytest.raises(ValueError, match="split: a part would be empty"):
            text.split(sample, train=train)
    with pytest.raises(ValueError, match=r"split: train must lie in \[0, 1\], got 9"):
        text.split("abc", train=9)
    with pytest.raises(TypeError, match="text must be a string, got list"):
        text.split([1, 2, 3])
