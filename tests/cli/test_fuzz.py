"""Damaged files and bad arguments, by seed: one line and exit code 2, nothing executed, nothing lost, little memory.

The short run takes a sample of them.
"""

from __future__ import annotations

import gzip
import importlib
import io
import json
import os
import pickle
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

from jaxnn import data
from jaxnn.cli import config as build
from jaxnn.cli import runs
from jaxnn.cli.config import TrainConfig
from jaxnn.cli.main import main

SEED = 16
SAMPLE = 9
"""The short run takes every ninth of the damaged files and bad arguments."""
CONFIG = TrainConfig(hidden=(16,))
EXAMPLE, CLASSES = (8, 8, 1), tuple("0123456789")
LIMIT = 500 << 20

HARMLESS = "png with much behind a small image"
"""Bytes that no reader unpacks."""

Damaged = tuple[str, str, bytes]
"""What it is, the file that it replaces, its content."""


class Canary:
    """Unpickled, it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Undamaged files: a run folder, and three images in each format."""
    folder = tmp_path_factory.mktemp("whole")
    net = build.build_network(CONFIG, EXAMPLE, len(CLASSES))
    params, state = net.init(jax.random.key(0), EXAMPLE)
    runs.write_config(folder, CONFIG, EXAMPLE, CLASSES)
    runs.write_params(folder, params, state)
    x = data.load("digits").test.x[:3, ..., 0]
    levels = np.rint(x * 255).astype(np.uint8)
    np.save(folder / "x.npy", x)
    np.savez_compressed(folder / "x.npz", x=x, y=np.arange(3))
    data.write_idx(folder / "x.idx", levels)
    data.write_idx(folder / "x.gz", levels)
    Image.fromarray(levels[0]).save(folder / "x.png")
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """No compilation for each of hundreds of runs."""
    monkeypatch.setattr("jaxnn.cli.predict.make_outputs", lambda net: net.predict)


def at_random(whole: dict[str, bytes], rng: np.random.Generator) -> Iterator[Damaged]:
    """Flipped bits, cuts, blocks of zeros or noise, junk at the end; in files of each kind."""
    for name, times in {
        "params.npz": 9,
        "config.json": 6,
        "x.png": 7,
        "x.npy": 6,
        "x.npz": 8,
        "x.idx": 6,
        "x.gz": 7,
    }.items():
        content = np.frombuffer(whole[name], np.uint8)
        for i in range(times):
            for low in (0, max(content.size - 300, 0), -1):
                # Anywhere, near the end (the directory of an archive), near the beginning (headers).
                place = rng.integers(0, min(200, content.size)) if low < 0 else rng.integers(low, content.size)
                changed = content.copy()
                changed[place] ^= 1 << rng.integers(8)
                yield f"{name}: bit flipped in byte {place}", name, changed.tobytes()
            cut = int(rng.integers(0, content.size))
            yield f"{name}: cut at {cut}", name, whole[name][:cut]
            start, length = int(rng.integers(0, content.size)), int(rng.integers(1, 64))
            block = rng.integers(0, 256, length).astype(np.uint8).tobytes() if i % 2 else bytes(length)
            yield f"{name}: block at {start}", name, whole[name][:start] + block + whole[name][start + length :]
        yield f"{name}: empty", name, b""
        yield f"{name}: noise", name, rng.integers(0, 256, 1000).astype(np.uint8).tobytes()
        yield f"{name}: twice", name, whole[name] * 2


def npz(arrays: dict[str, Any], compression: int = zipfile.ZIP_STORED, **lies: Any) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, array in arrays.items():
            archive.writestr(f"{name}.npy", array if isinstance(array, bytes) else npy(array))
    return out.getvalue()


def npy(array: Any) -> bytes:
    out = io.BytesIO()
    np.save(out, array, allow_pickle=True)
    return out.getvalue()


def npy_header(text: str, body: bytes = b"", claimed: int | None = None) -> bytes:
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text) if claimed is None else claimed) + text.encode() + body


def png(width: int, height: int, body: bytes = b"") -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def zeros_packed(head: bytes, count: int, wbits: int) -> bytes:
    """The head and then `count` zeros, packed without ever being whole in memory."""
    packer = zlib.compressobj(6, zlib.DEFLATED, wbits)
    parts = [packer.compress(head)] + [packer.compress(bytes(1 << 20)) for _ in range(count >> 20)]
    return b"".join([*parts, packer.flush()])


def zip_of(name: bytes, packed: bytes, size: int, method: int = 8, flags: int = 0, crc: int = 0) -> bytes:
    """A zip archive of one entry, which claims what it is told to."""
    local = struct.pack("<IHHHHHIIIHH", 0x04034B50, 20, flags, method, 0, 0, crc, len(packed), size, len(name), 0)
    entry = (20, 20, flags, method, 0, 0, crc, len(packed), size, len(name), 0, 0, 0, 0, 0, 0)
    central = struct.pack("<IHHHHHHIIIHHHHHII", 0x02014B50, *entry)
    body = local + name + packed
    end = struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, 1, 1, len(central) + len(name), len(body), 0)
    return body + central + name + end


def bombs() -> Iterator[Damaged]:
    """Files of some hundred kilobytes that unpack to seventy million bytes or claim to be far more."""
    count = 65 << 20
    head = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({count // 64}, 8, 8), }}".ljust(117) + "\n"
    whole_head = npy_header(head)
    packed = zeros_packed(whole_head, count, -15)
    yield "npz bomb of images", "x.npz", zip_of(b"x.npy", packed, len(whole_head) + count)
    small = npy_header("{'descr': '|u1', 'fortran_order': False, 'shape': (8, 8), }".ljust(117) + "\n")
    yield "npz bomb behind a small header", "x.npz", zip_of(b"x.npy", packed, len(small) + 64)
    yield "npz bomb of parameters", "params.npz", zip_of(b"params/1/w.npy", packed, len(whole_head) + count)
    idx = bytes([0, 0, 8, 3]) + struct.pack(">III", count // 64, 8, 8)
    yield "gzip bomb", "x.gz", zeros_packed(idx, count, 31)
    yield "png of 2e9 x 2e9", "x.png", png(2_000_000_000, 2_000_000_000)
    yield "png of 30000 x 30000", "x.png", png(30_000, 30_000, zlib.compress(bytes(1 << 20)))
    yield HARMLESS, "x.png", png(8, 8, zeros_packed(b"", 8 << 20, 15))
    for count in (10**11, 2 * 10**18):
        head = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({count}, 8, 8), }}\n"
        yield f"npy of {count} images", "x.npy", npy_header(head)


def on_purpose(whole: dict[str, bytes], canary: Path) -> Iterator[Damaged]:
    """What chance would hardly hit upon."""
    arrays = dict(np.load(io.BytesIO(whole["params.npz"])))
    first = "params/1/w"
    for what, changed in {
        "nan": arrays | {first: np.full_like(arrays[first], np.nan)},
        "one infinity": arrays | {first: np.where(np.arange(16) == 3, np.inf, arrays[first]).astype(np.float32)},
        "int8": {name: a.astype(np.int8) for name, a in arrays.items()},
        "float64": {name: a.astype(np.float64) for name, a in arrays.items()},
        "complex": arrays | {first: arrays[first].astype(np.complex64)},
        "pickle": arrays | {first: np.array([Canary(canary)], object)},
        "transposed": arrays | {first: arrays[first].T},
        "one lost": {name: a for name, a in arrays.items() if name != first},
        "one more": arrays | {"params/9/w": arrays[first]},
        "a scalar": arrays | {first: np.float32(1)},
        "raw text": arrays | {first: b"hello"},
        "raw pickle": arrays | {first: pickle.dumps(Canary(canary))},
    }.items():
        yield f"params.npz: {what}", "params.npz", npz(changed)
    yield "params.npz: bzip2", "params.npz", npz(arrays, zipfile.ZIP_BZIP2)
    yield "params.npz: lzma", "params.npz", npz(arrays, zipfile.ZIP_LZMA)
    yield "params.npz: other method", "params.npz", zip_of(b"params/1/w.npy", b"abc", 3, method=99)
    yield "params.npz: encrypted", "params.npz", zip_of(b"params/1/w.npy", b"abc" * 10, 30, flags=1)
    yield "params.npz: pickle alone", "params.npz", pickle.dumps(Canary(canary))
    yield "params.npz: an npy file", "params.npz", npy(np.array([Canary(canary)], object))
    yield "x.npy: pickle", "x.npy", npy(np.array([Canary(canary)], object))
    yield "x.npy: pickle alone", "x.npy", pickle.dumps(Canary(canary))
    yield "x.npz: pickle", "x.npz", npz({"x": np.array([Canary(canary)], object)})
    yield "x.npz: no x", "x.npz", npz({"y": np.zeros((8, 8))})
    yield "x.npz: nan", "x.npz", npz({"x": np.full((8, 8), np.nan)})
    for text in (
        "{'descr': __import__('os').mkdir('canary'), 'fortran_order': False, 'shape': (8, 8), }",
        "{" * 5000,
        "-" * 9000 + "1",
        "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (8, 8), }",
        "{'shape': (8, 8), 'shape': (8, 8), 'shape': (8, 8)}",
        "{'descr': '<f3', 'fortran_order': False, 'shape': (8, 8), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-8, 8), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (" + "8," * 100 + "), }",
        "{'descr': '<f4', 'fortran_order': 0, 'shape': (8, 8), }",
    ):
        yield f"x.npy: {text[:60]}", "x.npy", npy_header(text, bytes(256))
    yield "x.npy: long header", "x.npy", npy_header("{}", claimed=65535)
    yield (
        "x.npy: shape with brackets left open",
        "x.npy",
        npy_header("{'descr': '<f4', 'fortran_order': False, 'shape': (8, 8"),
    )
    for what, text in configs(json.loads(whole["config.json"])).items():
        yield f"config.json: {what}", "config.json", text if isinstance(text, bytes) else text.encode()
    for mode, value in {"RGB": (1, 2), "1": 0, "P": 3, "I;16": 65535, "F": None}.items():
        if value is not None:
            out = io.BytesIO()
            Image.new(mode, (9, 8)).save(out, "PNG")
            yield f"x.png: {mode} of another size", "x.png", out.getvalue()
    out = io.BytesIO()
    Image.new("L", (8, 8)).save(out, "JPEG")
    yield "x.png: a JPEG", "x.png", out.getvalue()
    for rank, sizes in ((255, ()), (3, (2**32 - 1,) * 3), (1, (3,)), (3, (0, 8, 8)), (3, (3, 8, 9))):
        yield (
            f"x.idx: sizes {sizes}",
            "x.idx",
            bytes([0, 0, 8, rank]) + struct.pack(f">{len(sizes)}I", *sizes) + bytes(192),
        )
    yield "x.gz: two members", "x.gz", whole["x.gz"] + gzip.compress(b"more")


def configs(told: dict[str, Any]) -> dict[str, str | bytes]:
    def changed(**options: Any) -> str:
        return other(options=told["options"] | options)

    def other(**values: Any) -> str:
        return json.dumps(told | values)

    text = json.dumps(told)

    return {
        "options null": other(options=None),
        "options a list": other(options=[]),
        "a list": "[]",
        "null": "null",
        "a number": "1e999",
        "nothing": "{}",
        "nested lists": "[" * 100_000,
        "nested objects": '{"a":' * 100_000,
        "closed": "[" * 100_000 + "]" * 100_000,
        "huge integer": changed(batch_size=1).replace('"batch_size": 1', '"batch_size": 1' + "0" * 5000),
        "large integer": changed(hidden=[10**30]),
        "many units": changed(hidden=[2 * 10**9] * 3),
        "many layers": changed(hidden=[1] * 200_000),
        "many convolutions": changed(model="cnn", convolutions=10**9),
        "twice": '{"options": {}, ' + text[1:],
        "option twice": text.replace('"data"', '"seed": 1, "data"'),
        "unknown option": changed(hiden=[1]),
        "number for text": changed(data=3),
        "text for a number": changed(batch_size="64"),
        "true for a number": changed(batch_size=True),
        "float for an integer": changed(batch_size=1.5),
        "null for a number": changed(dropout=None),
        "list for a number": changed(dropout=[0.1]),
        "object for a list": changed(hidden={"a": 1}),
        "text for a list": changed(hidden="16"),
        "list of texts": changed(hidden=["16"]),
        "nested list": changed(hidden=[[16]]),
        "negative": changed(hidden=[-1]),
        "NaN": changed(dropout=0.1).replace("0.1", "NaN"),
        "infinity": changed(dropout=0.1).replace("0.1", "Infinity"),
        "out of range": changed(dropout=2),
        "unknown optimizer": changed(optimizer="adma"),
        "unknown option of the optimizer": changed(optimizer_options=["b9=1"]),
        "unknown model": changed(model="rnn"),
        "another model": changed(model="linear"),
        "other units": changed(hidden=[17]),
        "example null": other(example=None),
        "example a text": other(example="881"),
        "example empty": other(example=[]),
        "example 0": other(example=[0, 8, 1]),
        "example huge": other(example=[2**30, 2**30, 2**30]),
        "example of floats": other(example=[8.0, 8, 1]),
        "classes null": other(classes=None),
        "classes of numbers": other(classes=list(range(10))),
        "classes empty": other(classes=[]),
        "classes fewer": other(classes=["0"]),
        "latin-1": text.replace("digits", "é").encode("latin-1"),
        "utf-16": text.encode("utf-16"),
        "null bytes": text.encode() + bytes(3),
        "two values": text * 2,
        "single quotes": str(told),
        "large": "[" + " " * (1 << 24) + "]",
    }


def damaged(whole: dict[str, bytes], canary: Path) -> list[Damaged]:
    return [*at_random(whole, np.random.default_rng(SEED)), *on_purpose(whole, canary), *bombs()]


def words_for(folder: Path, name: str) -> list[str]:
    """The command that reads a file."""
    images = name if name.startswith("x.") else "x.npy"
    return ["predict", str(folder), str(folder / images), *(["--levels", "255"] if name in ("x.idx", "x.gz") else [])]


def require_one_line(code: Any, said: str, what: str) -> None:
    assert code == 2, f"{what}: exit code {code}, {said}"
    assert said.startswith("jaxnn: "), f"{what}: {said}"
    assert said.count("\n") == 1, f"{what}: {said}"
    assert "Traceback" not in said, what


def expected_of(folder: Path, name: str) -> np.ndarray | None:
    """Images by another reader, where a format without checksums lets a change pass; None where nothing may change."""
    if name == "x.npy":
        return np.load(folder / name, allow_pickle=False)
    if name == "x.idx":
        return np.frombuffer((folder / name).read_bytes()[16:], np.uint8).reshape(3, 8, 8) / np.float32(255)
    return None


def check(case: Damaged, whole: dict[str, bytes], folder: Path, shown: dict[str, str], capsys: Any) -> int:
    """One damaged file among whole ones; 0 or 2."""
    what, name, content = case
    for other in ("config.json", "params.npz", "x.npy", name):
        (folder / other).write_bytes(content if other == name else whole[other])
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    code = main(words_for(folder, name))
    told = capsys.readouterr()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before, f"{what}: a file was changed"
    if code == 0:
        if what == HARMLESS:
            return 0
        images = expected_of(folder, name)
        if images is None or np.array_equal(images, np.load(io.BytesIO(whole["x.npy"]))):
            assert told.out == shown[name], f"{what}: another result"
        else:
            assert images.shape == (3, 8, 8), what
            assert images.min() >= 0, what
            assert images.max() <= 1, what
        return 0
    require_one_line(code, told.err, what)
    return 2


def run_all(cases: list[Damaged], whole: dict[str, bytes], folder: Path, capsys: Any) -> list[int]:
    shown = {}
    for name, content in whole.items():
        (folder / name).write_bytes(content)
    for name in whole:
        assert main(words_for(folder, name)) == 0, capsys.readouterr().err
        shown[name] = capsys.readouterr().out
    return [check(case, whole, folder, shown, capsys) for case in cases]


def test_a_sample_of_damaged_files(eager: None, whole: dict[str, bytes], tmp_path: Path, capsys: Any) -> None:
    cases = damaged(whole, tmp_path / "canary")[::SAMPLE]
    (tmp_path / "run").mkdir()
    codes = run_all(cases, whole, tmp_path / "run", capsys)
    assert len(codes) >= 40
    assert np.mean(codes) > 1.5, "most damage is seen"
    assert not (tmp_path / "canary").exists()


@pytest.mark.slow
def test_hundreds_of_damaged_files(eager: None, whole: dict[str, bytes], tmp_path: Path, capsys: Any) -> None:
    cases = damaged(whole, tmp_path / "canary")
    assert len(cases) >= 300
    (tmp_path / "run").mkdir()
    with little_memory():
        codes = run_all(cases, whole, tmp_path / "run", capsys)
    assert np.mean(codes) > 1.5
    assert not (tmp_path / "canary").exists()


def test_bombs_take_little_memory(eager: None, whole: dict[str, bytes], tmp_path: Path, capsys: Any) -> None:
    cases = list(bombs())
    (tmp_path / "run").mkdir()
    run_all([], {n: whole[n] for n in ("config.json", "params.npz", "x.npy")}, tmp_path / "run", capsys)
    for case in cases:
        tracemalloc.start()
        try:
            code = check(case, whole, tmp_path / "run", {}, capsys)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert code == 0 if case[0] == HARMLESS else code == 2, case[0]
        assert peak < 20 << 20, f"{case[0]} took {peak} bytes"


class little_memory:
    """Fails if the resident memory of the process ever grows by 500 MB within; where Linux tells."""

    def __enter__(self) -> None:
        self.before = None
        try:
            Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
            self.before = self._told("VmRSS")
        except OSError:
            pass

    def __exit__(self, *args: Any) -> None:
        if self.before is not None and args[0] is None:
            assert self._told("VmHWM") - self.before < LIMIT

    def _told(self, name: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith(name)).split()[1])


def never(*args: Any, **settings: Any) -> Any:
    pytest.fail("bad arguments reached the work")


INTEGERS = ("-1", "1.5", "x", "", "1e3", "nan", "0x10", "9" * 5000)
NUMBERS = ("-1", "nan", "x", "", "1,5", "--", "1e999")
CHOICES = ("", "x", "Digits", "digits mnist", "None", "é", "a\nb")
NAMES = ("x", "adma", "a\0b", "é,ß", "adam,,adma", "../..", "sgd:momentum", "[")
OPTIONS: dict[str, dict[str, tuple[str, ...]]] = {
    "train": {
        "--epochs": INTEGERS,
        "--batch-size": (*INTEGERS, "99999", str(10**30)),
        "--seed": (*INTEGERS, str(2**32)),
        "--seeds": (*INTEGERS, str(2**32 + 1)),
        "--convolutions": (*INTEGERS, str(10**9)),
        "--patience": INTEGERS,
        "--dropout": (*NUMBERS, "1"),
        "--learning-rate": NUMBERS,
        "--weight-decay": NUMBERS,
        "--momentum": NUMBERS,
        "--data": CHOICES,
        "--model": CHOICES,
        "--schedule": CHOICES,
        "--augment": CHOICES,
        "--optimizer": NAMES,
        "--optimizer-options": (
            "x",
            "b1",
            "b1=",
            "b1=x",
            "b1=2",
            "b3=.5",
            "b1=.9,b1=.8",
            "mask=1",
            "=1",
            "mu_dtype=int8",
        ),
        "--hidden": ("x", "-1", "0", "16,x", "1.5", str(10**15), " ".join(["1"] * 2000)),
        "--recipe": NAMES,
        "--out": ("full", "full/file/sub", "a\0b", "x" * 5000, "/proc/nowhere/x"),
    },
    "study norms": {
        "--epochs": INTEGERS,
        "--batch-size": (*INTEGERS, "99999"),
        "--examples": INTEGERS,
        "--seed": INTEGERS,
        "--learning-rate": NUMBERS,
        "--data": CHOICES,
        "--hidden": ("x", "-1", "16,x"),
        "--out": ("full", "full/file/x"),
    },
    "study": dict.fromkeys(NAMES, ()),
    "compare": dict.fromkeys(NAMES, ()),
    "compare race": {
        "--optimizers": NAMES,
        "--problems": NAMES,
        "--learning-rates": ("x", "log:1:2", "-1", "nan", "log:0:1:3", "1,x"),
        "--landscapes": ("x", "beal"),
        "--seeds": INTEGERS,
        "--epochs": INTEGERS,
        "--chunk": INTEGERS,
        "--seed": INTEGERS,
        "--out": ("full", "full/file"),
    },
    "compare parity": {
        "--steps": INTEGERS,
        "--tolerance": (*NUMBERS, "0"),
        "--dtype": CHOICES,
        "--gradients": CHOICES,
        "--problem": NAMES,
        "--seed": INTEGERS,
        "adma": (),
        "adam --all": (),
        "": (),
        "--out": ("full", "full/file/x"),
    },
    "playground": {
        "--data": CHOICES,
        "--features": ("z", "x,z", ""),
        "--hidden": ("x", "64", "8;8", "1,1,1,1,1,1,1"),
        "--noise": (*NUMBERS, "25"),
        "--epochs": INTEGERS,
        "--batch-size": INTEGERS,
        "--train-ratio": NUMBERS,
        "--learning-rate": NUMBERS,
        "--seed": INTEGERS,
        "--out": ("full", "full/file/x"),
    },
    "gallery": {"--only": (*NAMES, "", "losses x"), "--out": ("full", "full/file"), "losses": ()},
    "predict": {
        "--levels": (*NUMBERS, "0"),
        "--out": ("full", "full/file", "nowhere/x", "a\0b"),
        "nowhere": (),
    },
    **{name: {"": ()} for name in ("trian", "é", "--seed", "-x", "a\0b", " ")},
}
"""By command: options with values that none of them takes, and words that are wrong by themselves."""


def bad_arguments(rng: np.random.Generator) -> list[list[str]]:
    """Every option with two of its wrong values, without a value, given twice and misspelt."""
    found = []
    for command, options in OPTIONS.items():
        start = command.split(" ") if command.strip() else [command]
        if command == "predict":
            start += ["run", "x.npy"]
        for option, values in options.items():
            if not values:
                found.append([*start, *([option] if option else [])])
                continue
            for value in rng.choice(np.array(values, object), min(2, len(values)), replace=False):
                found.append([*start, option, *str(value).split(" ")])
            if option not in ("--hidden", "--optimizer-options"):  # which may be empty
                found.append([*start, option])
            if option not in ("--only", "--optimizer-options", "--hidden", "--optimizers", "--problems", "--landscapes",
                              "--learning-rates", "--features"):  # fmt: skip
                found.append([*start, option, "1", option, "1"])
            place = int(rng.integers(2, len(option)))
            found.append([*start, option[:place] + "q" + option[place:], "1"])
    return found


def fault(words: list[str], capsys: Any) -> str:
    """What is wrong about how the words were refused, or ""."""
    try:
        code = main(words)
        require_one_line(code, capsys.readouterr().err, "")
    except BaseException as error:
        return f"{[word[:60] for word in words]}: {error!r}"
    return ""


@pytest.fixture
def bench(whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a file, a full folder and a run; whoever begins to work fails."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    (tmp_path / "run").mkdir()
    for name in ("config.json", "params.npz"):
        (tmp_path / "run" / name).write_bytes(whole[name])
    (tmp_path / "x.npy").write_bytes(whole["x.npy"])
    for module, name in {
        "cli.train": "fit", "cli.parity": "measure", "cli.playground": "run", "compare.race": "_Runner",
        "cli.predict": "softmax", "studies.norms": "run",
    }.items():  # fmt: skip
        monkeypatch.setattr(importlib.import_module(f"jaxnn.{module}"), name, never)
    return tmp_path


def refuse_all(cases: list[list[str]], folder: Path, capsys: Any) -> None:
    def content() -> dict[str, bytes | None]:
        return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}

    before = content()
    faults = [told for words in cases if (told := fault(words, capsys))]
    assert not faults, "\n".join(faults)
    assert content() == before, "nothing is written"


def test_a_sample_of_bad_arguments(bench: Path, capsys: Any) -> None:
    refuse_all(bad_arguments(np.random.default_rng(SEED))[::SAMPLE], bench, capsys)


@pytest.mark.slow
def test_hundreds_of_bad_arguments(bench: Path, capsys: Any) -> None:
    cases = bad_arguments(np.random.default_rng(SEED))
    assert len(cases) >= 100
    refuse_all(cases, bench, capsys)
