"""The named data sets: the embedded digits, and finding, fetching and checking the files of the others. No network."""

from __future__ import annotations

import gzip
import hashlib
import os
from importlib import resources
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import numpy as np
import pytest

from jaxnn.data import digits, download, fashion_mnist, load, mnist, sources, write_idx
from jaxnn.files import UnwrittenError

KINDS = ("mnist", "fashion-mnist")


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    """Only file:// addresses open."""

    def local_only(url, timeout):
        if not url.startswith("file:"):
            raise URLError("no network in tests")
        return urlopen(url, timeout=timeout)

    monkeypatch.setattr(sources, "urlopen", local_only)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty home folder, and no data folder named."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("JAXNN_DATA", raising=False)
    return tmp_path / "home"


def fill(folder: Path, *, packed: bool = True) -> tuple[str, ...]:
    """Four small files as MNIST's, and their checksums."""
    folder.mkdir(parents=True, exist_ok=True)
    sums = []
    for name, n in zip(sources.FILES, (30, 30, 10, 10), strict=True):
        shape, rng = ((n, 4, 4) if "images" in name else (n,)), np.random.default_rng(n)
        path = folder / (f"{name}.gz" if packed else name)
        write_idx(path, rng.integers(0, 256 if "images" in name else 10, shape).astype(np.uint8))
        content = path.read_bytes()
        sums.append(hashlib.sha256(gzip.decompress(content) if packed else content).hexdigest())
    return tuple(sums)


@pytest.fixture
def small(home, tmp_path, monkeypatch):
    """MNIST replaced by a small set on a mirror in a folder; `small` is that Source."""
    sums = fill(tmp_path / "mirror")
    source = sources.MNIST._replace(mirrors=((tmp_path / "mirror").as_uri() + "/",), sha256=sums)
    monkeypatch.setattr(sources, "MNIST", source)
    return source


def test_digits_are_the_published_ones():
    data = digits()
    assert data.x.shape == (1797, 8, 8, 1)
    assert (data.x.dtype, data.y.dtype) == (np.float32, np.int32)
    assert (data.x.min(), data.x.max()) == (0, 1)
    np.testing.assert_array_equal(data.x * 16, np.round(data.x * 16))
    # counts by class as the repository's own description gives them
    assert np.bincount(data.y).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert data.classes == tuple("0123456789")


def test_digits_equal_an_independent_copy():
    copy = pytest.importorskip("sklearn.datasets", reason="scikit-learn has its own copy of the digits").load_digits()
    data = digits()
    np.testing.assert_array_equal(data.x[..., 0] * 16, copy.images)
    np.testing.assert_array_equal(data.y, copy.target)


def test_digits_are_small_and_name_source_and_licence():
    folder = resources.files("jaxnn.data")
    assert len(folder.joinpath("digits.npz").read_bytes()) < 150_000
    text = folder.joinpath("digits.txt").read_text(encoding="utf-8")
    for fact in ("Alpaydin", "Kaynak", "1998", "10.24432/C50P49", "CC BY 4.0"):
        assert fact in text


def test_the_default_split_of_the_digits_is_fixed():
    parts = load("digits")
    assert [len(part) for part in parts] == [1257, 270, 270]
    sums = [hashlib.sha256((part.x * 16).astype(np.uint8).tobytes()).hexdigest()[:16] for part in parts]
    assert sums == ["9414fd5675e62fbb", "d2273eda15132d60", "50b8faeb51ca0f8f"]
    for part in parts:
        assert np.abs(np.bincount(part.y) - np.bincount(digits().y) * len(part) / 1797).max() < 2
    assert not np.array_equal(load("digits", seed=1).test.y, parts.test.y)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match="one of digits, mnist, fashion-mnist, got 'cifar'"):
        load("cifar")


@pytest.mark.parametrize("packed", [True, False])
def test_files_are_found_in_the_variable_then_the_cache(small, home, tmp_path, monkeypatch, packed):
    places = [tmp_path / "data" / "mnist", home / ".cache" / "jaxnn" / "mnist"]
    for place in places:
        fill(place, packed=packed)
    monkeypatch.setenv("JAXNN_DATA", str(tmp_path / "data"))
    opened = []
    original = sources.read_idx
    monkeypatch.setattr(
        sources, "read_idx", lambda path, **kw: opened.append(Path(path).parent) or original(path, **kw)
    )
    for i, place in enumerate(places):
        opened.clear()
        train, test = mnist()
        assert set(opened) == {place}
        assert (train.x.shape, test.x.shape, test.y.shape) == ((30, 4, 4, 1), (10, 4, 4, 1), (10,))
        if i == 0:  # next time this place lacks a file
            next(place.glob("t10k-labels*")).unlink()


def test_a_folder_that_is_named_is_the_only_one_looked_in(small, home, tmp_path):
    fill(home / ".cache" / "jaxnn" / "mnist", packed=True)
    given = tmp_path / "given"
    fill(given, packed=True)
    assert mnist(given).train.x.shape == (30, 4, 4, 1)
    next(given.glob("t10k-labels*")).unlink()
    with pytest.raises(FileNotFoundError, match="given lacks t10k-labels"):
        mnist(given)
    with pytest.raises(FileNotFoundError, match="nowhere lacks train-images"):
        mnist(tmp_path / "nowhere")


def test_what_is_nowhere_is_downloaded_once_and_kept(small, home, monkeypatch, tmp_path):
    monkeypatch.setenv("JAXNN_DATA", str(tmp_path / "empty"))
    first = mnist()
    cache = home / ".cache" / "jaxnn" / "mnist"
    assert sorted(p.name for p in cache.iterdir()) == sorted(f"{name}.gz" for name in sources.FILES)
    monkeypatch.setattr(sources, "urlopen", None)  # a second download would fail
    second = mnist()
    np.testing.assert_array_equal(first.train.x, second.train.x)
    assert first.train.x.max() <= 1


def test_load_holds_out_a_validation_set(small, monkeypatch):
    monkeypatch.setattr(sources, "VALIDATION", 10)
    parts = load("mnist")
    assert [len(part) for part in parts] == [20, 10, 10]
    np.testing.assert_array_equal(parts.test.x, mnist().test.x)


def test_a_failing_or_lying_mirror_yields_to_the_next(small, home, tmp_path):
    lying = tmp_path / "lying"
    fill(lying)
    for path in lying.iterdir():
        path.write_bytes(b"<html>sorry</html>")
    mirrors = ("https://nowhere.invalid/", lying.as_uri() + "/", *small.mirrors)
    download(small._replace(mirrors=mirrors), tmp_path / "got")
    assert len(list((tmp_path / "got").iterdir())) == 4


def test_without_files_and_network_the_message_says_what_to_do(home):
    with pytest.raises(FileNotFoundError) as caught:
        fashion_mnist()
    text = str(caught.value)
    for part in (
        "no network in tests",
        *sources.FILES,
        *sources.FASHION_MNIST.mirrors,
        str(home / ".cache" / "jaxnn" / "fashion-mnist"),
        "D/fashion-mnist and set JAXNN_DATA=D",
    ):
        assert part in text


def test_a_wrong_download_leaves_nothing_behind(small, home, tmp_path):
    wrong = small._replace(sha256=("00" * 32, *small.sha256[1:]))
    with pytest.raises(FileNotFoundError, match="wrong checksum"):
        download(wrong, tmp_path / "got")
    assert not (tmp_path / "got").exists() or not list((tmp_path / "got").iterdir())


def test_an_interrupted_download_leaves_nothing_behind(small, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(sources.os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        download(small, tmp_path / "got")
    assert list((tmp_path / "got").iterdir()) == []


def test_a_damaged_file_that_was_found_is_an_error_not_a_reason_to_go_on(small, tmp_path):
    folder = tmp_path / "given"
    fill(folder)
    path = folder / f"{sources.FILES[0]}.gz"
    write_idx(path, np.zeros((30, 4, 4), np.uint8))
    with pytest.raises(ValueError, match=f"{path.name}: wrong checksum"):
        mnist(folder)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_real_sets_are_what_they_are_known_to_be(kind):
    folder = Path(os.environ.get("JAXNN_DATA", "")) / kind
    if not os.environ.get("JAXNN_DATA") or not (folder / "t10k-labels-idx1-ubyte.gz").is_file():
        pytest.skip(f"set JAXNN_DATA to a folder that holds {kind}/ to check the real files")
    train, test = {"mnist": mnist, "fashion-mnist": fashion_mnist}[kind]()
    assert (train.x.shape, test.x.shape) == ((60_000, 28, 28, 1), (10_000, 28, 28, 1))
    assert (train.y.shape, train.y.dtype, train.x.dtype) == ((60_000,), np.int32, np.float32)
    assert (train.x.min(), train.x.max(), len(train.classes)) == (0, 1, 10)
    counts = {"mnist": [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009], "fashion-mnist": [1000] * 10}[kind]
    assert np.bincount(test.y).tolist() == counts
    mean = {"mnist": (0.1307, 0.3081), "fashion-mnist": (0.2860, 0.3530)}[kind]  # as widely published
    np.testing.assert_allclose((train.x.mean(dtype=np.float64), train.x.std(dtype=np.float64)), mean, atol=1e-4)


def test_a_mirror_that_never_ends_yields_to_the_next(small, home, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "_LARGEST", 2000)
    endless = tmp_path / "endless"
    fill(endless)
    for path in endless.iterdir():
        path.write_bytes(path.read_bytes() + bytes(3000))
    with pytest.raises(FileNotFoundError, match="it sends more than 2000 bytes"):
        download(small._replace(mirrors=(endless.as_uri() + "/",)), tmp_path / "got")
    assert not (tmp_path / "got").exists()


def test_a_full_disk_is_no_fault_of_a_mirror(small, home, tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("jaxnn.files._replace", full)
    with pytest.raises(UnwrittenError, match=r"train-images-idx3-ubyte\.gz could not be written: No space left"):
        download(small, tmp_path / "got")
    assert not list((tmp_path / "got").iterdir())
