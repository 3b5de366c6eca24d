"""Checkpoint files: every dtype to the bit, strict restores, and damage that is an error and never a number."""

from __future__ import annotations

import errno
import io
import json
import os
import stat
import threading
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxnn import files, npz, optim
from jaxnn.train import checkpoints

DTYPES = (
    "float32", "float64", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "int4", "uint4", "int8", "uint32",
    "int64", "bool", "complex64",
)  # fmt: skip


def values_of(dtype: Any, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """All bit patterns of a dtype, as far as they fit."""
    rng = np.random.default_rng(seed)
    kind = np.dtype(dtype)
    if kind.kind == "b":
        return rng.integers(0, 2, shape).astype(bool)
    if "int4" in kind.name:
        return rng.integers(0, 7, shape).astype(kind)
    return np.frombuffer(rng.bytes(int(np.prod(shape, dtype=int)) * kind.itemsize), kind).reshape(shape)


def bits(x: Any) -> bytes:
    return np.asarray(jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x).tobytes()


def assert_bits(found: Any, expected: Any) -> None:
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert (a.dtype, a.shape, bits(a)) == (b.dtype, b.shape, bits(b))


@given(
    leaves=st.lists(st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 3), max_size=3)), min_size=1),
    nest=st.booleans(),
)
def test_every_dtype_and_shape_comes_back_to_the_bit(leaves: Any, nest: bool, tmp_path_factory: Any) -> None:
    arrays = [values_of(dtype, tuple(shape), i) for i, (dtype, shape) in enumerate(leaves)]
    values: Any = {"a": {"b": tuple(arrays)}, "none": None, "": ()} if nest else arrays
    path = tmp_path_factory.mktemp("bits") / "a.npz"
    checkpoints.write(path, values, {"seed": 3})
    found, about = checkpoints.read(path, values)
    assert_bits(found, values)
    assert about == {"seed": 3}


def test_device_arrays_keys_and_numbers(tmp_path: Path) -> None:
    keys = {name: jax.random.split(jax.random.key(7, impl=name), 3) for name in ("threefry2x32", "rbg", "unsafe_rbg")}
    opt = optim.adam(1e-3)
    values = {
        "keys": keys, "state": opt.init({"w": jnp.ones((2, 3), jnp.bfloat16)}), "number": 3, "rate": 0.1,
        "scalar": jnp.float32(np.pi), "int4": jnp.arange(-8, 8).astype(jnp.int4),
    }  # fmt: skip
    path = checkpoints.write(tmp_path / "a.npz", values)
    found, _ = checkpoints.read(path, values)
    assert (found["number"], found["rate"]) == (3, 0.1)
    assert isinstance(found["keys"]["rbg"], jax.Array)
    assert isinstance(found["state"].mu["w"], jax.Array)
    numbers = ("number", "rate")
    strip = lambda tree: {name: leaf for name, leaf in tree.items() if name not in numbers}  # noqa: E731
    assert_bits(strip(found), strip(values))
    # Shapes and dtypes are enough.
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x)), strip(values) | {"keys": ()})
    path = checkpoints.write(tmp_path / "b.npz", strip(values) | {"keys": ()})
    assert_bits(checkpoints.read(path, like)[0], strip(values) | {"keys": ()})
    shape = jax.eval_shape(lambda: keys)
    assert_bits(checkpoints.read(checkpoints.write(tmp_path / "c.npz", keys), shape)[0], keys)


def test_paths_that_would_coincide(tmp_path: Path) -> None:
    values = {"a/b": np.zeros(1), "a": {"b": np.ones(1)}, "file": np.full(1, 2.0), "about": np.full(1, 3.0)}
    path = checkpoints.write(tmp_path / "a.npz", values)
    assert_bits(checkpoints.read(path, values)[0], values)
    assert_bits(checkpoints.read(checkpoints.write(path, np.ones(2)), np.zeros(2))[0], np.ones(2))


@pytest.mark.parametrize(
    "values",
    [
        {"__about__": np.ones(2)},
        {"a\0b": np.ones(2), "a": np.zeros(2)},
        {"": np.ones(2), "value": np.zeros(2)},
        {"\ud800": np.ones(2)},
        {"é/ü": np.ones(2)},
    ],
)
def test_names_that_an_archive_has_not_come_back(values: Any, tmp_path: Path) -> None:
    assert_bits(checkpoints.read(checkpoints.write(tmp_path / "a.npz", values), values)[0], values)


def test_numbers_come_back_as_the_numbers_they_were(tmp_path: Path) -> None:
    scalars = (np.float32(0.1), np.float64(0.1), np.int8(-3), np.bool_(True), np.complex64(1j), ml_dtypes.bfloat16(0.5))
    values = (*scalars, True, 2**63, -3, 1j, np.array(2.0), np.zeros(2, ">f4"))
    found, _ = checkpoints.read(checkpoints.write(tmp_path / "a.npz", values), values)
    assert list(map(type, found)) == list(map(type, values))
    assert found[:-1] == values[:-1]
    assert_bits(found[-1:], values[-1:])


@jax.tree_util.register_pytree_with_keys_class
class Twins:
    """A node that gives its two children one key."""

    def tree_flatten_with_keys(self) -> Any:
        return [(jax.tree_util.GetAttrKey("child"), np.zeros(1)), (jax.tree_util.GetAttrKey("child"), np.ones(1))], None

    @classmethod
    def tree_unflatten(cls, about: Any, children: Any) -> Any:
        return cls()


KIND = "must be an array, a typed key or a number, got"


@pytest.mark.parametrize(
    ("leaf", "text"),
    [
        (b"ab", f"a/1 {KIND} bytes. Leave it out; texts may go into about="),
        ("text", f"a/1 {KIND} str. "),
        (jnp.tanh, f"a/1 {KIND} "),
        (jax.ShapeDtypeStruct((), float), f"a/1 {KIND} ShapeDtypeStruct"),
        (np.ma.array([1.0, 2.0], mask=[0, 1]), "a/1 must be a plain array, got a masked one, whose mask would be lost"),
        (np.ones((2, 2)).view(np.matrix), "a/1 must be a plain array, got matrix, whose class would be lost"),
        (np.array([None]), "a/1 must have a dtype of numbers or bools, got object"),
        (np.array(["text"]), "a/1 must have a dtype of numbers or bools, got <U4"),
        (np.zeros(2, "m8[s]"), r"a/1 must have a dtype of numbers or bools, got timedelta64\[s\]"),
        (np.zeros(2, [("x", "f4")]), "a/1 must have a dtype of numbers or bools, got "),
        (np.float64(1).astype("M8[s]"), r"a/1 must have a dtype of numbers or bools, got datetime64\[s\]"),
        (2**70, "a/1 must have at most 64 bits, got the integer 1180591620717411303424. Keep it in about="),
        (np.zeros((1,) * 33), "a/1 has shape .* expected at most 32 axes"),
        ({"x" * 70_000: 1.0}, r"a/1/x+\.\.\. is a name of 70,004 bytes, expected at most 65,531. Shorten"),
        (Twins(), r"two leaves are called \['a'\]\[1\]\.child"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
def test_what_a_file_cannot_keep_is_refused_by_name(leaf: Any, text: str, tmp_path: Path) -> None:
    values = {"a": (1.0, leaf)}
    for write in (lambda: checkpoints.write(tmp_path / "a.npz", values),
                  lambda: checkpoints.Checkpoints(tmp_path).save(1, values)):  # fmt: skip
        with pytest.raises((TypeError, ValueError), match=f"^checkpoint: {text}") as caught:
            write()
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 300
    assert not list(tmp_path.iterdir())


def test_more_leaves_than_a_reader_takes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(npz, "MAX_ARRAYS", 4)
    checkpoints.read(checkpoints.write(tmp_path / "a.npz", [1, 2, 3]), [1, 2, 3])
    with pytest.raises(ValueError, match=r"a file holds fewer than 4 leaves, got 4\. Stack them"):
        checkpoints.write(tmp_path / "a.npz", [1, 2, 3, 4])


def test_a_copy_is_taken_before_the_devices_donate_theirs(tmp_path: Path) -> None:
    step = jax.jit(lambda x: x + 1, donate_argnums=0)
    x = jnp.zeros(1 << 16)
    with checkpoints.Checkpoints(tmp_path) as folder:
        folder.save(1, x)
        for _ in range(10):
            x = step(x)
        folder.wait()
        assert not np.any(folder.restore(jnp.ones(1 << 16))[0])


@pytest.mark.parametrize(
    ("like", "text"),
    [
        ({"w": np.zeros((2, 4))}, "w has [2, 3], expected [2, 4]"),
        ({"w": np.zeros((2, 3), np.float32)}, "w has float64, expected float32"),
        ({"w": np.zeros((2, 3)), "b": np.zeros(2)}, "b is missing"),
        ({}, "w is not expected"),
        ({"w": jax.random.key(0)}, "w has float64, expected key<fry>"),
    ],
)
def test_another_tree_is_refused(like: Any, text: str, tmp_path: Path) -> None:
    path = checkpoints.write(tmp_path / "a.npz", {"w": np.zeros((2, 3))})
    with pytest.raises(ValueError, match="does not fit") as caught:
        checkpoints.read(path, like)
    assert str(caught.value) == f"{path} does not fit: {text}. It is of another run."


def test_a_key_of_another_implementation_is_refused(tmp_path: Path) -> None:
    path = checkpoints.write(tmp_path / "a.npz", jax.random.key(0, impl="rbg"))
    with pytest.raises(ValueError, match="value has key<rbg>, expected key<urbg>"):
        checkpoints.read(path, jax.random.key(0, impl="unsafe_rbg"))


def test_no_damage_becomes_a_number(tmp_path: Path) -> None:
    values = {"w": np.arange(40.0), "b": values_of(ml_dtypes.bfloat16, (7,))}
    path = checkpoints.write(tmp_path / "a.npz", values, {"epoch": 1})
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    damaged = [whole[:n] for n in rng.integers(0, len(whole), 40)]
    for at in rng.integers(0, len(whole), 300):
        content = bytearray(whole)
        content[at] ^= 1 << rng.integers(8)
        damaged.append(bytes(content))
    refused = 0
    for content in damaged:
        path.write_bytes(content)
        told = ""
        try:
            found, about = checkpoints.read(path, values)
        except ValueError as error:
            told = str(error)
        if told:
            refused += 1
            assert "\n" not in told
            assert str(path) in told
        else:  # a bit that means nothing, such as a date
            assert_bits(found, values)
            assert about == {"epoch": 1}
    assert refused > 250


def test_newer_and_foreign_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, w=np.zeros(2))
    with pytest.raises(ValueError, match='expected an array "__about__"'):
        checkpoints.read(path, {"w": np.zeros(2)})
    np.savez(path, __about__=np.frombuffer(b"[1, 2]", np.uint8))
    with pytest.raises(ValueError, match="is not a checkpoint"):
        checkpoints.read(path, {})
    for lacking in ("versions", "dtypes", "about"):
        text = {"format": 1, "versions": {}, "dtypes": {}, "about": {}} | {lacking: 3}
        np.savez(path, __about__=np.frombuffer(json.dumps(text).encode(), np.uint8))
        with pytest.raises(
            ValueError, match=rf"its __about__ must have {lacking} as objects .* got \{{'{lacking}': 3\}}"
        ):
            checkpoints.read(path, {})
    newer = json.dumps({"format": 2, "versions": {"jaxnn": "99"}, "dtypes": {}, "about": {}}).encode()
    np.savez(path, __about__=np.frombuffer(newer, np.uint8))
    with pytest.raises(ValueError, match=r"of format 2, this version of jaxnn \(.*\) reads format 1"):
        checkpoints.read(path, {})
    path.write_bytes(b"hello")
    with pytest.raises(ValueError, match=r"is not an \.npz file that can be read"):
        checkpoints.read(path, {})
    with pytest.raises(FileNotFoundError):
        checkpoints.read(tmp_path / "none.npz", {})
    with pytest.raises(FileNotFoundError, match="has no checkpoint: it has none"):
        checkpoints.Checkpoints(tmp_path / "new").restore({})


def test_a_folder_without_a_whole_checkpoint_says_what_to_delete(tmp_path: Path) -> None:
    with checkpoints.Checkpoints(tmp_path) as folder:
        for step in (0, 1):
            folder.save(step, {"w": np.arange(40.0)})
    first, second = (folder.path(step) for step in (0, 1))
    second.write_bytes(second.read_bytes()[:-100])
    with pytest.raises(ValueError, match="damaged or truncated") as caught:
        folder.restore({"w": np.zeros(40)})
    assert str(caught.value).endswith(f"; {first} is whole: to go on from step 0, delete or rename the other file.")
    first.write_bytes(b"")
    with pytest.raises(ValueError, match="damaged or truncated") as caught:
        folder.restore({"w": np.zeros(40)})
    names = f"{first.name}, {second.name}"
    assert str(caught.value).endswith(f"; no earlier one is whole: to begin anew, delete {names} in {tmp_path}.")
    folder.save(2, {"w": np.zeros(3)})
    folder.wait()
    with pytest.raises(ValueError, match=r"does not fit: w has \[3\], expected \[40\]. It is of another run.$"):
        folder.restore({"w": np.zeros(40)})
    with pytest.raises(ValueError, match=r"step must be at least 2, the newest in .*, got 1"):
        folder.save(1, {"w": np.zeros(3)})
    with pytest.raises(ValueError, match="step must be at least 0, got -1"):
        folder.save(-1, {"w": np.zeros(3)})


def full_after(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full after n bytes of a file."""

    class Full(io.FileIO):
        def write(self, content: Any) -> int:
            if self.tell() + len(content) > n:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(content)

    monkeypatch.setattr(files, "open", lambda file, mode: Full(file, mode), raising=False)


def test_a_full_disk_keeps_the_good_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"w": np.arange(1000.0)}
    folder = checkpoints.Checkpoints(tmp_path)
    folder.save(1, values)
    folder.wait()
    with monkeypatch.context() as context:
        full_after(4000, context)
        folder.save(2, values)
        with pytest.raises(files.UnwrittenError, match="No space left on device; nothing was written"):
            folder.wait()
    assert folder.steps() == [1]
    assert [path.name for path in tmp_path.iterdir()] == ["step-0000000001.npz"]
    assert_bits(folder.restore(values)[0], values)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_named(tmp_path: Path) -> None:
    folder = checkpoints.Checkpoints(tmp_path)
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    folder.save(1, np.zeros(1))
    with pytest.raises(files.UnwrittenError, match="Permission denied"):
        folder.wait()


def test_the_memory_of_the_save_before_is_taken_again(tmp_path: Path) -> None:
    first = {"w": np.arange(6.0).reshape(2, 3).T, "b": jnp.ones(3, jnp.bfloat16), "n": np.int32(1)}
    second = {"w": first["w"] + 1, "b": jnp.zeros(4, jnp.bfloat16), "n": np.int32(2)}
    before = checkpoints.on_host(first)
    after = checkpoints.on_host(second, before)
    assert [after[name] is before[name] for name in "wbn"] == [True, False, True]
    assert all(leaf.flags.c_contiguous for leaf in after.values())
    with np.load(checkpoints.write(tmp_path / "a.npz", second)) as found:
        np.testing.assert_array_equal(found["w"], second["w"])
        assert found["n"] == 2


def test_what_the_caller_changes_after_a_save_is_not_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The history grows while the thread writes."""
    changed, real = threading.Event(), checkpoints._write

    def late(*args: Any) -> Path:
        assert changed.wait(60)
        return real(*args)

    monkeypatch.setattr(checkpoints, "_write", late)
    with checkpoints.Checkpoints(tmp_path) as folder:
        history, values = [{"loss": 1.0}], np.zeros(3)
        folder.save(1, values, {"history": history})
        history.append({"loss": 2.0})
        values[:] = 1
        changed.set()
        found, about = folder.restore(values)
    assert about["history"] == [{"loss": 1.0}]
    assert not found.any()
