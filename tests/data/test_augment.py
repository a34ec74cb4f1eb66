"""Augmentation: the text of the flag, the draws, and the resampling against SciPy and Keras."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from convjax.data.augment import apply, augment, matrices, sample
from convjax.errors import UserError
from convjax.notation import FILLS, Augmentation, parse_augmentation

SIZES = [(28, 28, 1), (7, 12, 3), (15, 9, 1), (8, 8, 3), (1, 5, 2), (6, 1, 1)]
SPECS = ["chollet", "rotate=180", "shift=0.5x0.25", "shift=3", "shear=45", "zoom=0.5", "flip"]

jitted = jax.jit(augment, static_argnames="augmentation")
jitted_apply = jax.jit(apply, static_argnames="fill")


def random_images(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(shape, np.float32)


def random_matrices(count: int, size: tuple[int, int], seed: int) -> np.ndarray:
    """Any linear map, with offsets that go well outside on both sides."""
    rng = np.random.default_rng(seed)
    linear = rng.normal(0, 0.8, (count, 2, 2)) + np.eye(2)
    offset = rng.uniform(-2.5, 2.5, (count, 2, 1)) * np.array(size)[None, :, None]
    return np.concatenate([linear, offset], axis=2).astype(np.float32)


def scipy_apply(image: np.ndarray, matrix: np.ndarray, fill: str) -> np.ndarray:
    matrix = matrix.astype(np.float64)
    channels = [
        scipy.ndimage.affine_transform(
            channel.astype(np.float64), matrix[:, :2], matrix[:, 2], order=1, mode=fill, cval=0
        )
        for channel in np.moveaxis(image, 2, 0)
    ]
    return np.stack(channels, axis=2)


def near_a_jump(matrix: np.ndarray, size: tuple[int, int], fill: str) -> np.ndarray:
    """Where rounding may take a pixel to the other side of a discontinuity, so that no value is the right one."""
    grid = np.stack(np.meshgrid(*map(np.arange, size), indexing="ij"))
    position = np.tensordot(matrix[:, :2].astype(np.float64), grid, 1) + matrix[:, 2, None, None]
    last = np.array(size)[:, None, None] - 1
    if fill == "wrap":
        distance = np.abs(position / np.maximum(last, 1) - np.round(position / np.maximum(last, 1)))
    elif fill == "constant":
        distance = np.minimum(np.abs(position), np.abs(position - last))
    else:
        return np.zeros(size, bool)
    return (distance < 1e-4).any(axis=0)


class TestApply:
    @pytest.mark.parametrize("fill", FILLS)
    @pytest.mark.parametrize("shape", SIZES, ids=str)
    def test_is_scipys_affine_transform(self, shape, fill):
        size = shape[:2]
        images = random_images((40, *shape))
        chosen = random_matrices(40, size, seed=sum(shape))
        result = np.asarray(jitted_apply(images, chosen, fill=fill))
        compared = 0
        for image, matrix, ours in zip(images, chosen, result, strict=True):
            good = ~near_a_jump(matrix, size, fill)
            compared += good.sum()
            np.testing.assert_allclose(ours[good], scipy_apply(image, matrix, fill)[good], atol=1e-4, rtol=0)
        assert compared > 0.98 * result[..., 0].size

    @pytest.mark.parametrize("fill", FILLS)
    def test_whole_pixels_are_scipys_exactly(self, fill):
        """On the border itself too, where `constant` and `wrap` jump."""
        offsets = np.arange(-25, 26)
        images = random_images((len(offsets), 9, 9, 1))
        shifts = np.array([[[1, 0, offset], [0, 1, -offset]] for offset in offsets], np.float32)
        result = jitted_apply(images, shifts, fill=fill)
        expected = [scipy_apply(image, shift, fill) for image, shift in zip(images, shifts, strict=True)]
        np.testing.assert_array_equal(result, expected)

    @pytest.mark.parametrize(
        ("fill", "expected"),
        [
            ("nearest", [0.7, 0.6, 0.2, 0.2]),
            ("constant", [0.7, 0.6, 0.0, 0.0]),
            ("reflect", [0.7, 0.6, 0.2, 0.6]),
            ("wrap", [0.7, 0.6, 0.2, 0.7]),  # a period of 3: positions 3.5 and 4.5 are 0.5 and 1.5
        ],
    )
    def test_by_hand(self, fill, expected):
        row = jnp.asarray([0.0, 0.4, 1.0, 0.2]).reshape(1, 1, 4, 1)
        shift = jnp.asarray([[[1.0, 0.0, 0.0], [0.0, 1.0, 1.5]]])
        np.testing.assert_allclose(apply(row, shift, fill)[0, 0, :, 0], expected, atol=1e-6)

    @pytest.mark.parametrize("fill", ["nearest", "reflect", "wrap"])
    def test_a_flat_image_stays_exactly_flat(self, fill):
        flat = jnp.full((20, 9, 12, 3), 0.7)
        chosen = jnp.asarray(random_matrices(20, (9, 12), seed=1))
        np.testing.assert_array_equal(jitted_apply(flat, chosen, fill=fill), flat)


class TestMatrices:
    @pytest.mark.filterwarnings("ignore:.*scipy.ndimage.interpolation.*:DeprecationWarning")
    @pytest.mark.parametrize("fill", FILLS)
    @pytest.mark.parametrize("shape", [(28, 28, 1), (9, 9, 3)], ids=str)
    def test_is_keras_image_data_generator(self, shape, fill):
        """On square images; on others Keras takes the wrong centre. Keras calls our column shift `tx`."""
        from keras.src.legacy.preprocessing.image import ImageDataGenerator

        size = shape[:2]
        chosen = [sample(jax.random.key(3), 8, size, parse_augmentation(spec)) for spec in [*SPECS, "chollet+shear=30"]]
        draws = jax.tree.map(lambda *parts: jnp.concatenate(parts), *chosen)
        maps = np.asarray(matrices(draws, size))
        images = random_images((len(maps), *shape))
        ours = np.asarray(jitted_apply(images, maps, fill=fill))
        generator = ImageDataGenerator(fill_mode=fill, cval=0.0, data_format="channels_last")
        draws = jax.tree.map(lambda values: np.asarray(values, np.float64), draws)
        for i, image in enumerate(images):
            parameters = {
                "theta": np.rad2deg(draws.angle[i]),
                "shear": np.rad2deg(draws.shear[i]),
                "tx": draws.shift[i, 1],
                "ty": draws.shift[i, 0],
                "zx": draws.zoom[i, 1],
                "zy": draws.zoom[i, 0],
                "flip_horizontal": draws.flip[i],
            }
            expected = generator.apply_transform(image.astype(np.float64), parameters)
            # Whole pixels are exact on both sides, on the border too.
            exact = np.array_equal(maps[i], np.round(maps[i]))
            good = ~near_a_jump(maps[i], size, fill) | exact
            assert good.mean() > 0.6
            np.testing.assert_allclose(ours[i][good], expected[good], atol=1e-4, rtol=0)

    @pytest.mark.parametrize("shape", SIZES, ids=str)
    def test_half_a_turn_is_about_the_centre(self, shape):
        draws = sample(jax.random.key(0), 1, shape[:2], Augmentation())._replace(angle=jnp.asarray([jnp.pi]))
        images = random_images((1, *shape))
        turned = apply(jnp.asarray(images), matrices(draws, shape[:2]), "nearest")
        np.testing.assert_allclose(turned, images[:, ::-1, ::-1], atol=1e-4)

    def test_shift_is_of_rows_then_columns(self):
        images = random_images((1, 7, 12, 2))
        draws = sample(jax.random.key(0), 1, (7, 12), Augmentation())._replace(shift=jnp.asarray([[2.0, -3.0]]))
        shifted = apply(jnp.asarray(images), matrices(draws, (7, 12)), "nearest")
        rows, columns = np.minimum(np.arange(7) + 2, 6), np.maximum(np.arange(12) - 3, 0)
        np.testing.assert_array_equal(shifted, images[:, rows][:, :, columns])

    def test_zoom_above_one_makes_smaller_each_axis_apart(self):
        images = np.zeros((1, 21, 21, 1), np.float32)
        images[:, 2:19, 2:19] = 1
        draws = sample(jax.random.key(0), 1, (21, 21), Augmentation())._replace(zoom=jnp.asarray([[2.0, 1.0]]))
        zoomed = np.asarray(apply(jnp.asarray(images), matrices(draws, (21, 21)), "constant"))[0, :, :, 0] > 0
        assert (zoomed.any(axis=1).sum(), zoomed.any(axis=0).sum()) == (9, 17)


class TestSample:
    @settings(max_examples=25, deadline=None)
    @given(
        st.integers(0, 2**32 - 1),
        st.floats(0, 180),
        st.floats(0, 0.99),
        st.floats(0, 40),
        st.floats(0, 89),
        st.floats(0, 0.99),
    )
    def test_within_bounds(self, seed, rotate, height, width, shear, zoom):
        augmentation = Augmentation(rotate, (height, width), shear, zoom, flip=True)
        draws = sample(jax.random.key(seed), 16, (20, 30), augmentation)
        columns = width if width >= 1 else width * 30
        slack = 1 + 1e-6
        assert np.abs(draws.angle).max() <= np.deg2rad(rotate) * slack
        assert np.abs(draws.shear).max() <= np.deg2rad(shear) * slack
        assert np.abs(draws.shift[:, 0]).max() <= height * 20 * slack
        assert np.abs(draws.shift[:, 1]).max() <= columns * slack
        assert np.abs(draws.zoom - 1).max() <= zoom + 1e-6
        assert {values.dtype for values in draws} == {jnp.dtype("float32"), jnp.dtype("bool")}

    def test_uniform_and_independent(self):
        draws = sample(jax.random.key(7), 5000, (10, 20), parse_augmentation("chollet+shear=10"))
        flat = {
            "angle": draws.angle / np.deg2rad(40),
            "rows": draws.shift[:, 0] / 2,
            "columns": draws.shift[:, 1] / 4,
            "shear": draws.shear / np.deg2rad(10),
            "zoom rows": (draws.zoom[:, 0] - 1) / 0.2,
            "zoom columns": (draws.zoom[:, 1] - 1) / 0.2,
        }
        for name, values in flat.items():
            assert scipy.stats.kstest(np.asarray(values), "uniform", (-1, 2)).pvalue > 1e-3, name
        assert abs(draws.flip.mean() - 0.5) < 4 * 0.5 / 5000**0.5
        correlation = np.corrcoef([*flat.values(), draws.flip])
        assert np.abs(correlation - np.eye(7)).max() < 4 / 5000**0.5

    def test_other_parts_do_not_change_a_draw(self):
        key = jax.random.key(1)
        alone, among = (sample(key, 9, (8, 8), parse_augmentation(spec)) for spec in ("rotate=40", "chollet"))
        np.testing.assert_array_equal(alone.angle, among.angle)
        assert not alone.flip.any()
        assert not alone.shift.any()
        assert among.flip.any()

    def test_keys_are_independent(self):
        draws = [
            sample(jax.random.fold_in(jax.random.key(0), step), 2000, (8, 8), parse_augmentation("rotate=1"))
            for step in (0, 1)
        ]
        assert abs(np.corrcoef(draws[0].angle, draws[1].angle)[0, 1]) < 4 / 2000**0.5


class TestAugment:
    @pytest.mark.parametrize("fill", FILLS)
    @pytest.mark.parametrize("shape", SIZES, ids=str)
    def test_no_range_changes_nothing_and_flip_mirrors(self, shape, fill):
        """To the bit."""
        images = random_images((40, *shape))
        drawn = [sample(jax.random.key(0), 40, shape[:2], Augmentation(flip=flip)) for flip in (False, True)]
        same, mirrored = (np.asarray(jitted_apply(images, matrices(draws, shape[:2]), fill=fill)) for draws in drawn)
        np.testing.assert_array_equal(same, images)
        flipped = np.asarray(drawn[1].flip)
        assert 0 < flipped.sum() < 40
        np.testing.assert_array_equal(mirrored[flipped], images[flipped, :, ::-1])
        np.testing.assert_array_equal(mirrored[~flipped], images[~flipped])

    @pytest.mark.parametrize("shape", [(28, 28, 1), (7, 12, 3)], ids=str)
    def test_no_range_changes_nothing_in_one_program(self, shape):
        images = random_images((8, *shape))
        result = jitted(images, jax.random.key(0), augmentation=Augmentation(fill="constant"))
        np.testing.assert_array_equal(result, images)

    def test_an_image_depends_on_no_other(self):
        augmentation, key = parse_augmentation("chollet+shear=20"), jax.random.key(5)
        images = random_images((8, 9, 12, 3))
        others = random_images((8, 9, 12, 3), seed=1)
        others[3] = images[3]
        result, mixed = (np.asarray(jitted(jnp.asarray(x), key, augmentation=augmentation)) for x in (images, others))
        np.testing.assert_array_equal(result[3], mixed[3])
        prefix = jitted(jnp.asarray(images[:4]), key, augmentation=augmentation)
        np.testing.assert_allclose(prefix, result[:4], atol=1e-5)
        assert not np.allclose(result, images)

    def test_same_with_jit_without_and_under_vmap(self):
        augmentation = parse_augmentation("chollet+shift=0.5x3+fill=reflect")
        images, keys = jnp.asarray(random_images((6, 9, 12, 3))), jax.random.split(jax.random.key(2), 3)
        with jax.numpy_rank_promotion("raise"):
            eager = [augment(images, key, augmentation) for key in keys]
            compiled = [jitted(images, key, augmentation=augmentation) for key in keys]
            mapped = jax.vmap(functools.partial(augment, augmentation=augmentation), (None, 0))(images, keys)
        np.testing.assert_array_equal(compiled[0], jitted(images, keys[0], augmentation=augmentation))
        np.testing.assert_allclose(compiled, eager, atol=1e-4)
        np.testing.assert_allclose(mapped, eager, atol=1e-4)
        assert not np.allclose(eager[0], eager[1])

    @settings(max_examples=25, deadline=None)
    @given(st.integers(0, 2**32 - 1), st.sampled_from(FILLS), st.booleans())
    def test_values_stay_in_range(self, seed, fill, binary):
        images = random_images((8, 9, 12, 1), seed=seed)
        images = np.round(images) if binary else images
        augmentation = Augmentation(180, (0.5, 0.5), 60, 0.9, True, fill)
        result = np.asarray(jitted(jnp.asarray(images), jax.random.key(seed), augmentation=augmentation))
        assert result.dtype == np.float32
        assert result.shape == images.shape
        low = np.zeros(8) if fill == "constant" else images.min(axis=(1, 2, 3))
        assert (result.min(axis=(1, 2, 3)) >= low - 1e-6).all()
        assert (result.max(axis=(1, 2, 3)) <= images.max(axis=(1, 2, 3)) + 1e-6).all()


def number(most: float) -> st.SearchStrategy[str]:
    return st.integers(0, int(most * 1000)).map(lambda thousandths: f"{thousandths / 1000:.3f}")


@st.composite
def specs(draw: st.DrawFn) -> str:
    ranges = {
        "rotate": number(180),
        "shift": st.one_of(number(30), st.tuples(number(30), number(30)).map("x".join)),
        "shear": number(89),
        "zoom": number(0.99),
    }
    parts = [f"{name}={draw(text)}" for name, text in ranges.items() if draw(st.booleans())]
    parts += [name for name in ("flip", "chollet") if draw(st.booleans())] or ["flip"]
    parts += [f"fill={draw(st.sampled_from(FILLS))}"] if draw(st.booleans()) else []
    return "+".join(draw(st.permutations(parts)))


class TestParse:
    @given(specs())
    def test_round_trip(self, text):
        augmentation = parse_augmentation(text)
        if augmentation is None:
            return
        assert parse_augmentation(augmentation.spec) == augmentation
        assert parse_augmentation(str(augmentation)).spec == augmentation.spec
        assert hash(parse_augmentation(augmentation.spec)) == hash(augmentation)
        assert not set(augmentation.spec) & set(",- ")
        assert parse_augmentation("+".join(reversed(text.split("+")))) == augmentation

    @pytest.mark.parametrize(
        ("text", "canonical"),
        [
            ("rotate=40", "rotate=40"),
            ("flip+rotate=10.50", "rotate=10.5+flip"),
            ("shift=0.2x0.2", "shift=0.2"),
            ("shift=0x.1", "shift=0x0.1"),
            ("shift=2.x100", "shift=2x100"),
            ("fill=wrap+zoom=0.1+shear=5", "shear=5+zoom=0.1+fill=wrap"),
            ("fill=nearest+flip+zoom=0", "flip"),
            ("rotate=40+shift=0.2+shear=0.2+zoom=0.2+flip", "chollet"),
            ("chollet+fill=constant", "chollet+fill=constant"),
            ("chollet+rotate=0", "shift=0.2+shear=0.2+zoom=0.2+flip"),
        ],
    )
    def test_canonical(self, text, canonical):
        assert parse_augmentation(text).spec == canonical == str(parse_augmentation(text))

    def test_chollet_is_the_books(self):
        assert parse_augmentation("chollet") == Augmentation(40.0, (0.2, 0.2), 0.2, 0.2, True, "nearest")

    @pytest.mark.parametrize("text", ["", "rotate=0", "shift=0x0", "rotate=0+zoom=0.0+fill=wrap"])
    def test_nothing(self, text):
        assert parse_augmentation(text) is None

    @pytest.mark.parametrize(
        ("text", "named"),
        [
            ("spin=3", "'spin=3' is not understood; expected rotate=40"),
            ("rotate=10,flip", "rotate=10,flip; expected a number from 0 to 180"),
            ("rotate", "rotate=; expected a number"),
            ("rotate=-5", "rotate=-5; expected a number"),
            ("rotate=1e2", "rotate=1e2; expected"),
            ("rotate=181", "from 0 to 180"),
            ("rotate=nan", "expected a number"),
            ("rotate=٣", "expected a number"),
            ("rotate=1x2", "expected a number"),
            ("zoom=1", "from 0 to 0.99"),
            ("shear=90", "from 0 to 89"),
            ("shift=1x2x3", "height x width"),
            ("shift=0.1x70000", "from 0 to 65536"),
            ("flip=1", "'flip=1' is not understood"),
            ("chollet=2", "'chollet=2' is not understood"),
            ("flip+flip", "'flip' is given twice"),
            ("rotate=1+rotate=2", "'rotate' is given twice"),
            ("fill=mirror+flip", "'mirror' is not known; expected one of nearest, constant, reflect, wrap"),
            ("fill=wrap", "transforms nothing"),
            ("+flip", "'' is not understood"),
            ("flip+", "'' is not understood"),
            ("Flip", "'Flip' is not understood"),
        ],
    )
    def test_errors_are_one_line_that_names_the_part(self, text, named):
        with pytest.raises(UserError, match=re.escape(named)) as error:
            parse_augmentation(text)
        assert str(error.value).startswith(f"--augment={text}")
        assert "\n" not in str(error.value)
