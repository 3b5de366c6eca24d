"""Pytrees in safetensors files: exact for all dtypes, read by others and from others, refused with a reason."""

from __future__ import annotations

import json
import os
import re
import struct
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

pytest.importorskip("safetensors", reason="safetensors is not installed")
import safetensors.numpy

from jaxnn import models, optim
from jaxnn.files import UnwrittenError
from jaxnn.interchange import (
    from_torch,
    load_safetensors,
    safetensors_metadata,
    save_safetensors,
    to_torch,
)
from jaxnn.interchange.safetensors_file import DTYPES
from jaxnn.layers import Dense, Relu
from tests.helpers import float64


def bits(tree: Any) -> Any:
    """Structure, and dtype, shape and bytes of each leaf: equal for NaN of one kind, unequal for 0.0 and -0.0."""
    return jax.tree.map(lambda x: (str(x.dtype), x.shape, np.asarray(x).tobytes()), tree)


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray:
    """Any bytes as an array of any dtype of the format; also not contiguous, empty, or of no axes."""
    dtype = np.dtype(draw(st.sampled_from(sorted(DTYPES.values()))))
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3))
    top = 2 if dtype.kind == "b" else 256
    raw = draw(hnp.arrays(np.uint8, (*shape, dtype.itemsize), elements=st.integers(0, top - 1)))
    array = np.ascontiguousarray(raw).view(dtype).reshape(shape)
    return array.T if draw(st.booleans()) else array


KEYS = st.text("ab.é_ ", min_size=1, max_size=3)
TREES = st.recursive(
    arrays(), lambda inner: st.dictionaries(KEYS, inner, max_size=3) | st.tuples(inner) | st.lists(inner, max_size=2),
    max_leaves=4,
)  # fmt: skip


@given(TREES, st.none() | st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2))
def test_any_pytree_of_any_dtypes_comes_back_to_the_bit(tree: Any, metadata: dict[str, str] | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.safetensors"
        assert save_safetensors(path, tree, metadata=metadata) == path
        assert bits(load_safetensors(path, like=tree)) == bits(tree)
        flat = load_safetensors(path)
        assert safetensors_metadata(path) == (metadata or {})
        assert sorted(map(str, bits(flat).values())) == sorted(map(str, jax.tree.leaves(bits(tree), is_leaf=is_bits)))
        assert os.listdir(folder) == ["a.safetensors"]


def is_bits(x: Any) -> bool:
    return isinstance(x, tuple) and len(x) == 3 and isinstance(x[0], str)


def test_training_goes_on_from_a_file(tmp_path: Path) -> None:
    """Parameters, state and the optimizer's state as one pytree, back from its shapes alone."""
    net = models.cnn([2], [3], 2, batch_norm=True)
    params, state = net.init(jax.random.key(0), (6, 6, 1))
    everything = {"params": params, "state": state, "opt": optim.adam(1e-3).init(params)}
    path = save_safetensors(tmp_path / "run.safetensors", everything, metadata={"epoch": "3"})
    back = load_safetensors(path, like=jax.eval_shape(lambda: everything))
    assert bits(back) == bits(everything)
    assert all(isinstance(x, jax.Array) for x in jax.tree.leaves(back))
    assert {"params/1/w", "state/3/mean", "opt/mu/1/w", "opt/count"} <= set(load_safetensors(path))


def test_others_read_our_files_and_we_theirs(tmp_path: Path) -> None:
    tree = {"a": np.arange(6, dtype=np.float32).reshape(2, 3).T, "b": {"c": np.array(True)}}
    path = save_safetensors(tmp_path / "ours", tree, metadata={"format": "np"})
    with safetensors.safe_open(path, "np") as file:
        assert file.metadata() == {"format": "np"}
    theirs = safetensors.numpy.load_file(path)
    assert bits(theirs) == bits({"a": tree["a"], "b/c": tree["b"]["c"]})
    safetensors.numpy.save_file({"x": np.ones(2)}, tmp_path / "theirs")
    assert bits(load_safetensors(tmp_path / "theirs")) == bits({"x": np.ones(2)})


def test_torch_reads_what_we_write_and_we_what_it_writes(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    import safetensors.torch

    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2)).bfloat16()
    net = models.serial(Dense(4), Relu, Dense(2))
    safetensors.torch.save_file(module.state_dict(), tmp_path / "theirs.safetensors")
    params, state = from_torch(net, load_safetensors(tmp_path / "theirs.safetensors"), (3,))
    assert bits(params) == bits(from_torch(net, module.state_dict(), (3,))[0])
    save_safetensors(tmp_path / "ours.safetensors", to_torch(net, params, state, (3,)), metadata={"format": "pt"})
    back = safetensors.torch.load_file(tmp_path / "ours.safetensors")
    assert {name: x.dtype for name, x in back.items()} == dict.fromkeys(module.state_dict(), torch.bfloat16)
    assert all(torch.equal(x, back[name]) for name, x in module.state_dict().items())
    save_safetensors(tmp_path / "tensors.safetensors", module.state_dict())
    ours, tensors = (load_safetensors(tmp_path / f"{name}.safetensors") for name in ("ours", "tensors"))
    assert bits(ours) == bits(tensors)


LIKE = {"w": jax.ShapeDtypeStruct((2, 3), jnp.float32), "b": jax.ShapeDtypeStruct((3,), jnp.float32)}


@pytest.mark.parametrize(
    ("tree", "told"),
    [
        ({"w": np.ones((2, 3), np.float32)}, "'b' is missing"),
        ({"w": np.ones((2, 3), np.float32), "bb": np.ones(3)}, r"'b' is missing.*'bb' is not expected"),
        ({"w": np.ones((3, 2), np.float32), "b": np.ones(3)}, r"'w' must be float32\[2, 3\], got float32\[3, 2\]"),
        ({"w": np.ones((2, 3), np.float32), "b": np.ones(3)}, r"'b' must be float32\[3\], got float64\[3\]"),
    ],
)  # fmt: skip
def test_what_differs_from_like_is_listed(tree: Any, told: str, tmp_path: Path) -> None:
    path = save_safetensors(tmp_path / "a", tree)
    with pytest.raises(
        ValueError, match=f"load_safetensors: .*a does not hold a pytree like `like`: .*{told}"
    ) as error:
        load_safetensors(path, like=LIKE)
    assert "\n" not in str(error.value)


def test_a_long_list_of_differences_is_cut(tmp_path: Path) -> None:
    path = save_safetensors(tmp_path / "a", {f"x{i}": np.ones(1) for i in range(20)})
    with pytest.raises(ValueError, match="and 14 more"):
        load_safetensors(path, like=LIKE)


def test_float64_needs_x64_or_numpy(tmp_path: Path) -> None:
    path = save_safetensors(tmp_path / "a", {"x": np.ones(2)})
    assert isinstance(load_safetensors(path, like={"x": np.zeros(2)})["x"], np.ndarray)
    like = {"x": jax.ShapeDtypeStruct((2,), np.float64)}
    with float64():
        assert load_safetensors(path, like=like)["x"].dtype == np.float64
    like["x"].dtype = np.dtype(np.float64)
    with pytest.raises(ValueError, match=r"'x' is float64, which JAX has only if jax_enable_x64 is set. Set it, or"):
        load_safetensors(path, like=like)


def header(entries: Any, data: bytes = b"") -> bytes:
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"short",
        b"\x93NUMPY" + bytes(100),
        header(b"{not json}"),
        header(b"\xff\xfe\xff"),
        struct.pack("<Q", 1 << 60) + b"{}",
        header({"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, bytes(7)),
        header({"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, bytes(9)),
        header({"x": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}, bytes(8)),
        header({"x": {"dtype": "F33", "shape": [2], "data_offsets": [0, 8]}}, bytes(8)),
        header({"x": {"dtype": "F32", "shape": [1 << 62, 1 << 62], "data_offsets": [0, 8]}}, bytes(8)),
    ],
)
def test_a_damaged_file_is_named_in_one_line(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "broken.safetensors"
    path.write_bytes(content)
    for read in (load_safetensors, safetensors_metadata):
        with pytest.raises(
            ValueError, match=r"broken\.safetensors is not a safetensors file that can be read"
        ) as error:
            read(path)
        assert "\n" not in str(error.value)


def one_line(path: Path) -> str | None:
    """The error of reading a file, which has one line; None if it was read."""
    try:
        load_safetensors(path)
    except ValueError as error:
        (line,) = str(error).splitlines()
        return line
    return None


@given(st.data())
def test_a_flipped_byte_or_a_lost_end_is_an_error_in_one_line_or_read(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = save_safetensors(Path(folder) / "a", {"w": np.ones((2, 3)), "b": np.ones(3, np.int8)})
        whole = bytearray(path.read_bytes())
        if data.draw(st.booleans()):
            whole = whole[: data.draw(st.integers(0, len(whole) - 1))]
            path.write_bytes(whole)
            with pytest.raises(ValueError, match="a is not a safetensors file"):
                load_safetensors(path)
        else:
            whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
            path.write_bytes(whole)
            told = one_line(path)
            assert told is None or str(path) in told


def test_a_dtype_that_numpy_has_not_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(header({"x": {"dtype": "F4", "shape": [2], "data_offsets": [0, 1]}}, bytes(1)))
    with pytest.raises(ValueError, match="a: 'x' has dtype F4, which NumPy has not"):
        load_safetensors(path)


def test_errors_of_the_file_system_stay_what_they_are(tmp_path: Path) -> None:
    for read in (load_safetensors, safetensors_metadata):
        with pytest.raises(FileNotFoundError):
            read(tmp_path / "absent")
        with pytest.raises(IsADirectoryError):
            read(tmp_path)
    with pytest.raises(UnwrittenError, match="could not be written"):
        save_safetensors(tmp_path / "no" / "folder", {"x": np.ones(1)})


def test_a_failed_save_leaves_the_file_that_was_there(tmp_path: Path) -> None:
    path = save_safetensors(tmp_path / "a", {"x": np.ones(1)})
    before = path.read_bytes()
    with pytest.raises(TypeError, match=r"'y' has dtype complex128, which the format has not. It has bool, int8"):
        save_safetensors(path, {"x": np.ones(2), "y": np.ones(1, complex)})
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize(
    ("tree", "error", "told"),
    [
        ({"k": jax.random.key(0)}, TypeError, r"'k' has typed random keys. Pass their numbers: jax.random.key_data"),
        ({"x": 1.0}, TypeError, r"'x' must be an array, got float. Convert numbers"),
        ({"x": "text"}, TypeError, "'x' must be an array, got str"),
        ({"x": np.array(["a"])}, TypeError, "'x' has dtype <U1"),
        ({"a": {"b": np.ones(1)}, "a/b": np.ones(1)}, ValueError, "two leaves are called 'a/b'. Rename a key"),
        ({"__metadata__": np.ones(1)}, ValueError, "the name '__metadata__' is reserved"),
    ],
)
def test_what_cannot_be_saved_is_refused(tree: Any, error: Any, told: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=f"save_safetensors: .*{told}"):
        save_safetensors(tmp_path / "a", tree)
    assert not os.listdir(tmp_path)


def test_metadata_and_like_are_checked(tmp_path: Path) -> None:
    with pytest.raises(
        TypeError, match=re.escape("metadata must map texts to texts, got 'epoch': 3. Convert it by str()")
    ):
        save_safetensors(tmp_path / "a", {}, metadata={"epoch": 3})  # type: ignore[dict-item]
    path = save_safetensors(tmp_path / "a", {"x": np.ones(1)})
    for leaf in (1.0, jax.random.key(0)):
        with pytest.raises(TypeError, match=r"the leaf 'x' of like must be an array or jax.ShapeDtypeStruct"):
            load_safetensors(path, like={"x": leaf})


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "safetensors", None)
    for call in (lambda: save_safetensors(tmp_path / "a", {}), lambda: load_safetensors(tmp_path / "a"),
                 lambda: safetensors_metadata(tmp_path / "a")):  # fmt: skip
        with pytest.raises(ImportError, match=r"needs the package safetensors. Install it: pip install 'jaxnn\[safete"):
            call()
