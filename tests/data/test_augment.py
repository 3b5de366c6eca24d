"""Augmentation: the warp against NumPy and SciPy, the drawn parameters against their stated distributions."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage, stats

from jaxnn.data import augment, warp
from tests.helpers import float64, slow, strict

KEY = jax.random.key(0)
N, SIZE = 6, 8
IMAGES = np.random.default_rng(0).uniform(size=(N, SIZE, SIZE, 2)).astype(np.float32)

ALL = {
    "shift": augment.shift(2),
    "rotate": augment.rotate(30.0),
    "scale": augment.scale(1.3),
    "shear": augment.shear(0.3),
    "affine": augment.affine(max_degrees=20.0, max_factor=1.2, max_stretch=1.1, max_shear=0.2, max_pixels=1.5),
    "elastic": augment.elastic(8.0, 2.0),
    "distort": augment.distort(8.0, 2.0, max_degrees=20.0, max_pixels=1.0),
    "flip": augment.flip(),
    "cutout": augment.cutout(3),
    "compose": augment.compose(augment.flip(), augment.shift(1)),
}
NOTHING = {
    "shift": augment.shift(0),
    "rotate": augment.rotate(0.0),
    "scale": augment.scale(1.0),
    "shear": augment.shear(0.0),
    "affine": augment.affine(),
    "elastic": augment.elastic(0.0, 2.0),
    "distort": augment.distort(0.0, 2.0),
    "compose": augment.compose(),
}


# The warp.


def scipy_sample(images, rows, columns):
    """The oracle: linear interpolation, zeros outside."""
    read = [
        [ndimage.map_coordinates(image[..., c], [r, k], order=1, mode="grid-constant") for c in range(image.shape[-1])]
        for image, r, k in zip(np.asarray(images, np.float64), rows, columns, strict=True)
    ]
    return np.moveaxis(np.array(read), 1, -1)


SAMPLERS = {
    "right": warp.sample_bilinear,
    "rows and columns exchanged": lambda i, r, c: warp.sample_bilinear(i, c, r),
    "nearest pixel": lambda i, r, c: warp.sample_bilinear(i, jnp.round(r), jnp.round(c)),
    "edge repeated": lambda i, r, c: warp.sample_bilinear(i, jnp.clip(r, 0, 6), jnp.clip(c, 0, 8)),
    "off by one": lambda i, r, c: warp.sample_bilinear(i, r + 1, c),
}


def test_sampling_equals_scipy_and_broken_samplings_do_not():
    """At random coordinates, up to several pixels outside, on images that are not square."""
    rng = np.random.default_rng(1)
    images = rng.normal(size=(3, 7, 9, 2)).astype(np.float32)
    rows, columns = (rng.uniform(-3, 12, (3, 5, 6)).astype(np.float32) for _ in range(2))
    with strict():
        found = jax.jit(lambda *a: {name: sample(*a) for name, sample in SAMPLERS.items()})(images, rows, columns)
    expected = scipy_sample(images, rows, columns)
    assert [name for name, got in found.items() if np.abs(got - expected).max() <= 1e-5] == ["right"]


def test_sampling_far_outside_gives_zero():
    sample = jax.jit(warp.sample_bilinear)
    far = np.float32([[[-1e9, 1e9, -np.inf, np.inf, -1.0, SIZE]]])
    inside, image = np.full_like(far, 3.0), IMAGES[:1]
    assert not np.any(sample(image, far, inside))
    assert not np.any(sample(image, inside, far))
    assert np.all(sample(image, inside, inside))


def coordinates(degrees=0.0, scale=(1.0, 1.0), shear=0.0, shift=(0.0, 0.0), n=N, shape=(SIZE, SIZE)):
    one = jnp.ones(n)
    return warp.affine_coordinates(
        *shape,
        degrees=degrees * one,
        scale=one[:, None] * jnp.array(scale),
        shear=shear * one,
        shift=one[:, None] * jnp.array(shift),
    )


@jax.jit
def _moved(degrees, scale, shear, shift):
    return warp.sample_bilinear(IMAGES, *coordinates(degrees, scale, shear, shift))


def moved(degrees=0.0, scale=(1.0, 1.0), shear=0.0, shift=(0.0, 0.0)):
    return np.asarray(_moved(degrees, scale, shear, shift))


def test_the_identity_changes_no_bit():
    np.testing.assert_array_equal(moved(), IMAGES)


@pytest.mark.parametrize("turns", [1, 2, 3, -1])
def test_quarter_turns_equal_rot90(turns):
    np.testing.assert_allclose(moved(degrees=90.0 * turns), np.rot90(IMAGES, turns, axes=(1, 2)), atol=1e-5)


@pytest.mark.parametrize("down", [-9, -2, 0, 3])
@pytest.mark.parametrize("right", [-3, 0, 1])
def test_whole_pixel_shifts_equal_roll_with_zero_fill(down, right):
    padded = np.pad(IMAGES, ((0, 0), (10, 10), (10, 10), (0, 0)))
    expected = np.roll(padded, (down, right), axis=(1, 2))[:, 10:-10, 10:-10]
    np.testing.assert_array_equal(moved(shift=(down, right)), expected)


@pytest.mark.slow
def test_the_affine_map_equals_scipy():
    """Against `ndimage.affine_transform` with a matrix formed here by a general inverse; images not square."""
    images = np.random.default_rng(2).normal(size=(2, 9, 7, 1)).astype(np.float32)
    degrees, scale, shear, shift = 25.0, (1.3, 0.8), 0.2, (1.5, -0.7)
    where = functools.partial(coordinates, degrees, scale, shear, shift, n=2, shape=(9, 7))
    got = jax.jit(lambda images: warp.sample_bilinear(images, *where()))(images)
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    inverse = np.linalg.inv(turn @ np.array([[1, 0], [shear, 1]]) @ np.diag(scale))
    centre = np.array([4.0, 3.0])
    for image, mine in zip(images, got, strict=True):
        expected = ndimage.affine_transform(
            image[..., 0].astype(np.float64),
            inverse,
            centre - inverse @ (centre + shift),
            order=1,
            mode="grid-constant",
        )
        np.testing.assert_allclose(mine[..., 0], expected, atol=1e-4)
        wrong = ndimage.affine_transform(
            image[..., 0].astype(np.float64),
            inverse.T,
            centre - inverse.T @ (centre + shift),
            order=1,
            mode="grid-constant",
        )
        assert np.abs(np.asarray(mine[..., 0]) - wrong).max() > 0.1, "a transposed matrix must not pass"


@pytest.mark.parametrize("sigma", [0.3, 2.0, 5.0])
def test_smoothing_equals_scipy(sigma):
    fields = np.random.default_rng(3).uniform(-1, 1, (2, 3, 9, 6)).astype(np.float32)
    got = jax.jit(warp.smooth)(fields, sigma)
    expected = ndimage.gaussian_filter(fields.astype(np.float64), sigma, mode="constant", axes=(2, 3), radius=(8, 5))
    np.testing.assert_allclose(got, expected, atol=1e-5)
    assert np.abs(got - 1.05 * expected).max() > 1e-5, "another normalization must not pass"


# The augmentations.


@pytest.mark.parametrize(
    "name", ["shift", "distort", *slow("rotate", "scale", "shear", "affine", "elastic", "compose")]
)
def test_zero_parameters_change_no_bit(name):
    np.testing.assert_array_equal(jax.jit(NOTHING[name])(KEY, IMAGES), IMAGES)


@pytest.mark.parametrize(
    "name",
    ["distort", "compose", *slow("shift", "rotate", "scale", "shear", "affine", "elastic", "flip", "cutout")],
)
def test_every_augmentation_keeps_its_promises(name):
    """Shape, dtype, range, reproducible by key, images independent of each other; strict promotion, jit, vmap."""
    step, images = ALL[name], IMAGES
    same = np.broadcast_to(IMAGES[:1], IMAGES.shape)

    def once_and_mapped(key, seeds, many):
        return step(key, many[0]), jax.vmap(step)(jax.vmap(jax.random.key)(seeds), many)

    with strict():
        many = np.stack([IMAGES, IMAGES, IMAGES, same])
        out, runs = jax.device_get(jax.jit(once_and_mapped)(KEY, np.int32([0, 0, 1, 0]), many))
    assert (out.shape, out.dtype) == (images.shape, images.dtype)
    np.testing.assert_allclose(runs[0], out, atol=2e-5)
    np.testing.assert_array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[2], runs[0])
    assert not np.array_equal(out, images)
    assert out.min() >= -1e-6
    assert out.max() <= images.max() + 1e-6
    assert len({np.asarray(image).tobytes() for image in runs[3]}) > 1, "each image must draw its own parameters"
    np.testing.assert_array_equal(runs[3, 0], runs[0, 0])  # changing the other images changes nothing


@pytest.mark.parametrize("name", ["affine", *slow("flip")])
def test_leaving_out_the_last_images_changes_nothing_for_the_first(name):
    first, whole = jax.jit(lambda key, images: (ALL[name](key, images[:3]), ALL[name](key, images)))(KEY, IMAGES)
    np.testing.assert_allclose(first, whole[:3], atol=2e-5)


@pytest.mark.parametrize("name", ["affine", *slow("elastic", "flip")])
def test_other_dtypes_are_kept_and_computed_in_float32_or_better(name):
    exact = np.asarray(jax.jit(ALL[name])(KEY, IMAGES), np.float64)
    for dtype, tolerance in ((jnp.bfloat16, 1e-2), (jnp.float16, 2e-3)):
        out = jax.jit(ALL[name])(KEY, IMAGES.astype(dtype))
        assert out.dtype == dtype
        np.testing.assert_allclose(np.asarray(out, np.float64), exact, atol=tolerance)
    with float64(), strict():
        assert jax.eval_shape(ALL[name], KEY, IMAGES.astype(np.float64)).dtype == jnp.float64


@jax.jit
def _affine(key, images, options):
    return augment.affine(**options)(key, images)


def affine(**options):
    """`augment.affine`, in one program whatever the options are."""
    options = {"max_degrees": 0.0, "max_factor": 1.0, "max_stretch": 1.0, "max_shear": 0.0, "max_pixels": 0.0} | options
    return lambda key, images: _affine(key, images, options)


@pytest.mark.parametrize(
    ("made", "options"),
    [
        (augment.rotate(40.0), {"max_degrees": 40.0}),
        (augment.scale(1.5), {"max_factor": 1.5}),
        (augment.shear(0.5), {"max_shear": 0.5}),
    ],
    ids=["rotate", "scale", "shear"],
)
def test_each_of_one_parameter_is_the_affine_program(made, options):
    """So that the distributions below are theirs too."""
    mine, affines = (jax.make_jaxpr(step)(KEY, IMAGES) for step in (made, augment.affine(**options)))
    assert str(mine) == str(affines)


def read_from(step, n: int = 1000, size: int = 12):
    """Where each image was read at its four middle pixels: a ramp as the image gives its coordinates away."""
    ramp = np.stack(np.meshgrid(np.arange(size), np.arange(size), indexing="ij"), -1).astype(np.float32) + 1
    out = np.asarray(step(KEY, np.broadcast_to(ramp, (n, size, size, 2))), np.float64) - 1
    middle = size // 2
    corner, below, right = (out[:, middle - 1 + i, middle - 1 + j] for i, j in ((0, 0), (1, 0), (0, 1)))
    matrix = np.stack([below - corner, right - corner], -1)  # [:, row or column, per row or per column]
    centre = corner + 0.5 * (below - corner) + 0.5 * (right - corner)
    return matrix, centre - (size - 1) / 2


def assert_uniform(values, bound) -> None:
    """Uniform on [-bound, bound]: Kolmogorov-Smirnov, significance 1e-6."""
    assert stats.kstest(values, stats.uniform(-bound, 2 * bound).cdf).pvalue > 1e-6
    assert np.abs(values).max() <= bound * (1 + 1e-4)


def test_angles_are_uniform():
    matrix, centre = read_from(affine(max_degrees=40.0))
    np.testing.assert_allclose(
        np.einsum("nij,nik->njk", matrix, matrix), np.broadcast_to(np.eye(2), matrix.shape), atol=1e-4
    )
    np.testing.assert_allclose(centre, 0, atol=1e-5)
    assert_uniform(np.rad2deg(np.arctan2(matrix[:, 0, 1], matrix[:, 0, 0])), 40.0)


def test_logarithms_of_factors_are_uniform():
    matrix, _ = read_from(affine(max_factor=1.5))
    np.testing.assert_allclose(matrix[:, [0, 1], [1, 0]], 0, atol=1e-5)
    np.testing.assert_allclose(matrix[:, 0, 0], matrix[:, 1, 1], rtol=1e-4)
    assert_uniform(-np.log(matrix[:, 0, 0]), np.log(1.5))
    stretched, _ = read_from(affine(max_stretch=1.5))
    np.testing.assert_allclose(stretched[:, 0, 0] * stretched[:, 1, 1], 1, rtol=1e-4)
    assert_uniform(np.log(stretched[:, 0, 0]), np.log(1.5))


def test_shears_and_real_shifts_are_uniform():
    matrix, _ = read_from(affine(max_shear=0.5))
    assert_uniform(-matrix[:, 1, 0], 0.5)
    np.testing.assert_allclose(matrix - np.eye(2) - np.eye(2, k=-1) * matrix[:, 1:, :1], 0, atol=1e-5)
    matrix, centre = read_from(affine(max_pixels=2.0))
    np.testing.assert_allclose(matrix, np.broadcast_to(np.eye(2), matrix.shape), atol=1e-5)
    for axis in (0, 1):
        assert_uniform(-centre[:, axis], 2.0)
    assert abs(np.corrcoef(centre.T)[0, 1]) < 0.15


def test_whole_shifts_are_uniform_over_all_whole_numbers():
    _, centre = read_from(jax.jit(augment.shift(2)))
    whole = np.round(centre).astype(int)
    np.testing.assert_allclose(centre, whole, atol=1e-5)
    counts = np.bincount((whole[:, 0] + 2) * 5 + whole[:, 1] + 2, minlength=25)
    assert len(counts) == 25
    assert stats.chisquare(counts).pvalue > 1e-6


@pytest.mark.slow
def test_distort_is_its_equation_in_one_sampling():
    """Transcribed with SciPy: the affine coordinates plus alpha times the smoothed noise, read once."""
    alpha, sigma = 8.0, 2.0
    got = jax.jit(ALL["elastic"])(KEY, IMAGES)
    noise = np.asarray(
        jax.random.uniform(jax.random.split(KEY)[1], (N, 2, SIZE, SIZE), minval=-1, maxval=1), np.float64
    )
    field = alpha * ndimage.gaussian_filter(noise, sigma, mode="constant", axes=(2, 3), radius=SIZE - 1)
    rows, columns = np.meshgrid(np.arange(SIZE), np.arange(SIZE), indexing="ij")
    expected = scipy_sample(IMAGES, rows + field[:, 0], columns + field[:, 1])
    np.testing.assert_allclose(got, expected, atol=1e-4)
    affine_only = jax.jit(augment.distort(0.0, sigma, max_degrees=20.0))(KEY, IMAGES)
    turned = jax.jit(augment.affine(max_degrees=20.0))(jax.random.split(KEY)[0], IMAGES)
    np.testing.assert_allclose(affine_only, turned, atol=1e-5)


@pytest.mark.slow
def test_the_stated_deviation_of_the_elastic_field():
    noise = np.random.default_rng(5).uniform(-1, 1, (1000, 40, 40)).astype(np.float32)
    middle = 34.0 * np.asarray(warp.smooth(jnp.asarray(noise), 4.0))[:, 15:25, 15:25]
    np.testing.assert_allclose(np.std(middle), 34 / (6.14 * 4), rtol=0.03)


def test_flip_mirrors_about_half_of_the_images():
    images = np.random.default_rng(4).uniform(size=(400, 3, 4, 1)).astype(np.float32)
    out = np.asarray(jax.jit(augment.flip())(KEY, images))
    mirrored = np.array([np.array_equal(a, b[:, ::-1]) for a, b in zip(out, images, strict=True)])
    kept = np.array([np.array_equal(a, b) for a, b in zip(out, images, strict=True)])
    assert (mirrored ^ kept).all()
    assert stats.binomtest(int(mirrored.sum()), 400).pvalue > 1e-6


@pytest.mark.slow
def test_cutout_zeroes_one_square():
    out = np.asarray(jax.jit(augment.cutout(3))(KEY, np.ones((400, 7, 9, 2), np.float32)))
    hole = out == 0
    assert (hole[..., 0] == hole[..., 1]).all()
    rows, columns = hole[..., 0].any(2), hole[..., 0].any(1)
    assert (hole[..., 0] == rows[:, :, None] & columns[:, None, :]).all()
    assert set(rows.sum(1)) == set(columns.sum(1)) == {2, 3}
    np.testing.assert_allclose(rows[:, 3].mean(), 3 / 7, atol=0.13)


def test_compose_applies_from_left_to_right_with_a_key_each():
    steps = (lambda key, x: x + jax.random.uniform(key), lambda key, x: x * jax.random.uniform(key))

    def drawn(key):
        return [jax.random.uniform(jax.random.fold_in(key, i)) for i in (0, 1)], augment.compose(*steps)(key, IMAGES)

    (first, second), got = jax.device_get(jax.jit(drawn)(KEY))
    np.testing.assert_allclose(got, (IMAGES + first) * second, rtol=1e-6)
    assert first != second


@pytest.mark.slow
def test_parameters_may_be_traced_and_gradients_flow():
    images = IMAGES

    def total(parameters, images):
        alpha, sigma, degrees, factor = parameters
        return augment.distort(alpha, sigma, max_degrees=degrees, max_factor=factor)(KEY, images)

    with strict():
        traced = jax.jit(total)((8.0, 2.0, 10.0, 1.1), images)
        weights = jax.jit(jax.grad(lambda x: jnp.sum(total((8.0, 2.0, 10.0, 1.1), x))))(images)
    fixed = jax.jit(augment.distort(8.0, 2.0, max_degrees=10.0, max_factor=1.1))(KEY, images)
    np.testing.assert_allclose(traced, fixed, atol=1e-5)
    # the map is linear in the image: <gradient of the sum, images> is the sum
    np.testing.assert_allclose(jnp.sum(weights * images), jnp.sum(traced), rtol=1e-4)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: augment.shift(-1), ValueError, "shift: max_pixels must be at least 0, got -1"),
        (lambda: augment.shift(1.5), TypeError, "shift: max_pixels must be an int, got 1.5"),
        (lambda: augment.rotate(-1.0), ValueError, r"max_degrees must lie in \[0, 180\], got -1"),
        (lambda: augment.rotate(181.0), ValueError, "max_degrees must lie in"),
        (lambda: augment.scale(0.5), ValueError, r"max_factor must lie in \[1, inf\], got 0.5"),
        (lambda: augment.affine(max_stretch=0.9), ValueError, "max_stretch must lie in"),
        (lambda: augment.shear(-0.1), ValueError, "max_shear must lie in"),
        (lambda: augment.affine(max_pixels=-1), ValueError, "max_pixels must lie in"),
        (lambda: augment.elastic(-1.0, 2.0), ValueError, r"alpha must lie in \[0, inf\], got -1"),
        (lambda: augment.elastic(1.0, 0.0), ValueError, "sigma must be positive, got 0"),
        (lambda: augment.cutout(0), ValueError, "size must be at least 1, got 0"),
        (lambda: augment.flip()(KEY, np.zeros((2, 8, 8), np.float32)), ValueError, r"\(N, H, W, C\), got \(2, 8, 8\)"),
        (
            lambda: augment.flip()(KEY, np.zeros((1, 2, 2, 1), np.uint8)),
            TypeError,
            "floating dtype, got uint8.*/ 255",
        ),
        (lambda: augment.flip()(None, np.zeros((1, 2, 2, 1), np.float32)), ValueError, "needs a random key"),
        (lambda: augment.flip()(0, np.zeros((1, 2, 2, 1), np.float32)), TypeError, "typed key"),
        (
            lambda: warp.sample_bilinear(*(np.zeros(s, np.float32) for s in ((2, 3, 3, 1), (1, 3, 3), (1, 3, 3)))),
            ValueError,
            r"shape \(N, h, w\) with N = 2",
        ),
    ],
)
def test_bad_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
