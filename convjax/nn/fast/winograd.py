"""Convolution as a few matrix products, with its gradients: `patches` and `winograd`.

Images are `[channels, height, width, batch]`, kernels `[kernel_height, kernel_width, in_channels, out_channels]`.

**One row.** Winograd's minimal filtering F(m, r) (Winograd 1980; Lavin & Gray 2016) computes m neighboring outputs of
a filter with r taps, y[j] = sum_q g[q] d[j + q], from m + r - 1 inputs d by m + r - 1 products in place of m r:

    y = A^T ((G g) * (B^T d)).

This is polynomial multiplication by interpolation (Toom 1963, Cook 1966), transposed. G g are the values of the
polynomial g at m + r - 2 points and at infinity (its leading coefficient), A^T those of an m-term polynomial, and B^T
the transposed interpolation: row p of B^T is the polynomial prod_{q != p} (t - q), whose value at p itself divides row
p of G; the row of infinity is prod_q (t - q). With the points 0, 1, -1 this is F(2, 3) of Lavin & Gray. Up to eight
products the points 0, ±1, ±2, ±1/2 keep float32's error within a few times that of the direct sum (`transforms`).

**Images.** Only the columns are transformed; rows and channels are summed as in `patches`. With the output columns in
tiles of m, product a of all tiles, rows and images is one matrix product, between
U_a [kernel_height * in_channels, out_channels] and V_a [kernel_height * in_channels, out_height * tiles * batch]:

    V_a = for each kernel row: sum_i B[i, a] x[:, rows, i + m * tile]        (`_gather`)
    U_a = sum_q G[a, q] kernel[:, q]                                         (`_filters`)
    z[:, :, j + m * tile] = sum_a A[a, j] (U_a^T V_a)                        (`_combine`)

**Strides.** With a horizontal stride s the columns are dealt out into s phases, x[:, :, p::s], and so are the kernel's;
the phases are further channels of a convolution without stride whose kernel is ceil(kernel_width / s) wide.

**Wide kernels** leave room for small tiles only, F(2, 7). Cut into groups, 7 columns into 4 + 3, the groups are further
channels too, each of an image that starts as many columns later, for larger tiles: F(5, 4).

**Patches** (Chellapilla, Puri & Simard 2006) is the same with m = 1, B the identity and A all ones: sum_a is then left
to one single matrix product over all a, whose V is the matrix of receptive fields.

All three steps are linear in x and in the kernel, so the gradients are the transposed steps around the transposed
products: dU_a = V_a dM_a^T and dV_a = U_a dM_a. They are written out below, because JAX's own transposes of slices are
slow (see `convjax.nn.fast.strided`).
"""

import dataclasses
import functools
from collections.abc import Sequence
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from convjax.nn.fast.strided import compiled_apart, overlap_add, strided
from convjax.notation import Window

MOST_PRODUCTS = 8
_POINTS = (Fraction(0), Fraction(1), Fraction(-1), Fraction(2), Fraction(-2), Fraction(1, 2), Fraction(-1, 2))


@dataclasses.dataclass(frozen=True)
class Plan:
    """How one convolution is computed.

    Attributes:
      image: (height, width) of the input.
      window, strides: of the kernel.
      before: zeros above and to the left of the image; those below and to the right follow from `size`.
      size: (rows, columns) of the output, counted from its first; the rest is not computed.
      tile: output columns computed together, the m of F(m, r); 1 for `patches`.
      groups: equal runs that the kernel's columns are cut into; only with a tile.
    """

    image: Window
    window: Window
    strides: Window
    before: Window
    size: Window
    tile: int = 1
    groups: int = 1

    @property
    def tiles(self) -> int:
        """Tiles in a row; the last may reach beyond `size`."""
        return -(-self.size[1] // self.tile)

    @property
    def phases(self) -> int:
        """Sets of columns that a horizontal stride tells apart; `patches` needs no such distinction."""
        return 1 if self.tile == 1 else self.strides[1]

    @property
    def taps(self) -> int:
        """Kernel columns of one group and phase, the r of F(m, r)."""
        return -(-self.window[1] // (self.groups * self.phases))

    @property
    def matrices(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """A, G, B."""
        if self.tile == 1:
            identity = np.eye(self.taps, dtype=np.float32)
            return np.ones((self.taps, 1), np.float32), identity, identity
        return transforms(self.tile, self.taps)

    @property
    def products(self) -> list[tuple[int, ...]]:
        """The a of each matrix product: of one each, or of all where the product itself sums over a."""
        points = tuple(range(self.matrices[1].shape[0]))
        return [points] if self.tile == 1 else [(point,) for point in points]

    @property
    def starts(self) -> tuple[list[int], list[list[int]]]:
        """The first row that each kernel row meets; for each part the first column that each input of a tile does.

        A part is one phase of one group. Counted in the image, so that zeros before it are negative.
        """
        inputs = self.matrices[2].shape[0]
        rows = [row - self.before[0] for row in range(self.window[0])]
        columns = [
            [(group * self.taps + i) * self.phases + phase - self.before[1] for i in range(inputs)]
            for group in range(self.groups)
            for phase in range(self.phases)
        ]
        return rows, columns

    @property
    def steps(self) -> Window:
        """Rows from one output row to the next, columns from one tile to the next."""
        return self.strides[0], self.strides[1] * self.tile

    @property
    def after(self) -> Window:
        """Zeros below and to the right of the image."""
        rows, columns = self.starts
        last = rows[-1] + (self.size[0] - 1) * self.steps[0], columns[-1][-1] + (self.tiles - 1) * self.steps[1]
        return max(0, last[0] + 1 - self.image[0]), max(0, last[1] + 1 - self.image[1])

    @property
    def pointwise(self) -> bool:
        """Whether every output sees just the input in its place."""
        return self.window == self.strides == (1, 1) and self.size == self.image


@functools.cache
def transforms(tile: int, taps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`(A, G, B)` of F(tile, taps), of shapes [products, tile], [products, taps] and [inputs, products].

    Each column of B is scaled so that its largest entry is 1, and the row of G inversely: all products are then of
    one magnitude. The largest error of one output, relative to the largest output, is about 3e-7 for direct
    sums of 300 terms, 3e-7 for F(2, 3), 1.6e-6 for F(5, 3) and 1.4e-6 for F(6, 3) and F(4, 5).
    """
    products = tile + taps - 1
    if products > MOST_PRODUCTS:
        raise ValueError(f"F({tile}, {taps}) takes {products} products; at most {MOST_PRODUCTS} are accurate")
    points = _POINTS[: products - 1]

    def values_at_points(terms: int) -> list[list[Fraction]]:
        at_infinity = [Fraction(int(power == terms - 1)) for power in range(terms)]
        return [[point**power for power in range(terms)] for point in points] + [at_infinity]

    def polynomial(roots: Sequence[Fraction]) -> list[Fraction]:
        coefficients = [Fraction(1)]
        for root in roots:
            shifted, scaled = [Fraction(0), *coefficients], [*(root * c for c in coefficients), Fraction(0)]
            coefficients = [a - b for a, b in zip(shifted, scaled, strict=True)]
        return coefficients

    a, g, b = values_at_points(tile), values_at_points(taps), []
    for index, point in enumerate(points):
        others = [*points[:index], *points[index + 1 :]]
        scale = functools.reduce(lambda value, other: value * (point - other), others, Fraction(1))
        g[index] = [entry / scale for entry in g[index]]
        b.append([*polynomial(others), Fraction(0)])
    b.append(polynomial(points))
    for index, row in enumerate(b):
        largest = max(abs(entry) for entry in row)
        b[index] = [entry / largest for entry in row]
        g[index] = [entry * largest for entry in g[index]]
    as_array = lambda rows: np.array([[float(entry) for entry in row] for row in rows], np.float32)  # noqa: E731
    return as_array(a), as_array(g), as_array(b).T


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolve(
    x: Float[Array, "in_channels height width batch"],
    kernel: Float[Array, "kernel_height kernel_width in_channels out_channels"],
    plan: Plan,
) -> Float[Array, "out_channels out_height out_width batch"]:
    """The convolution that `plan` describes."""
    return _convolve_forward(x, kernel, plan)[0]


def _convolve_forward(
    x: jax.Array, kernel: jax.Array, plan: Plan
) -> tuple[jax.Array, tuple[jax.Array, list[jax.Array]]]:
    filters, framed = _filters(plan, kernel), _padded(x, plan.before, plan.after)
    products = [
        _times(u, _receptive_fields(plan, points, framed), 0) for points, u in zip(plan.products, filters, strict=True)
    ]
    return products[0] if plan.tile == 1 else _combine(plan, *products), (framed, filters)


def _convolve_backward(
    plan: Plan, residuals: tuple[jax.Array, list[jax.Array]], cotangent: jax.Array
) -> tuple[jax.Array, jax.Array]:
    framed, filters = residuals
    cotangent = _padded(cotangent, (0, 0), (0, plan.tiles * plan.tile - plan.size[1]))
    filter_gradients, columns = [], []
    for points, u in zip(plan.products, filters, strict=True):
        product = cotangent if plan.tile == 1 else _combine_transposed((plan, *points), cotangent)
        filter_gradients.append(_inner(_receptive_fields(plan, points, framed), product))
        gathered = _times(u, product, 1)
        columns += [gathered] if plan.pointwise else _rows_transposed((plan, points), gathered)
    x_gradient = columns[0] if plan.pointwise else _columns_transposed(plan, *columns)
    return x_gradient, _filters_transposed(plan, *filter_gradients)


convolve.defvjp(_convolve_forward, _convolve_backward)


def _times(matrix: jax.Array, images: jax.Array, axis: int) -> jax.Array:
    """The product of `matrix`, summed over `axis`, with `[channels, rows, tiles, batch]`."""
    flat = images.reshape(images.shape[0], -1)
    return lax.dot_general(matrix, flat, (((axis,), (0,)), ((), ()))).reshape(-1, *images.shape[1:])


def _inner(a: jax.Array, b: jax.Array) -> jax.Array:
    """[channels of a, channels of b]: products summed over rows, tiles and batch."""
    # Flat: left to itself XLA transposes operands with several axes to sum over.
    a, b = a.reshape(a.shape[0], -1), b.reshape(b.shape[0], -1)
    if a.shape[0] < b.shape[0]:
        # The second operand is packed anew, so it had better be the smaller.
        return _inner(b, a).T
    return lax.dot_general(a, b, (((1,), (1,)), ((), ())))


def _weighted_sum(weights: np.ndarray, terms: Sequence[jax.Array]) -> jax.Array:
    """sum_i weights[i] * terms[i], skipping zeros; at least one weight is not zero."""
    scaled = [
        term if weight == 1 else term * np.asarray(weight, term.dtype)
        for weight, term in zip(weights, terms, strict=True)
        if weight != 0
    ]
    return functools.reduce(jnp.add, scaled)


def _padded(x: jax.Array, before: Window, after: Window) -> jax.Array:
    """`x` with zeros around its rows and columns."""
    if before == after == (0, 0):
        return x
    return _pad(tuple(zip((0, *before, 0), (0, *after, 0), (0, 0, 0, 0), strict=True)), x)


@compiled_apart
def _pad(ends: tuple[tuple[int, int, int], ...], x: jax.Array) -> jax.Array:
    return lax.pad(x, jnp.zeros((), x.dtype), ends)


def _receptive_fields(plan: Plan, points: tuple[int, ...], framed: jax.Array) -> jax.Array:
    return framed if plan.pointwise else _gather((plan, points), framed)


@compiled_apart
def _gather(static: tuple[Plan, tuple[int, ...]], framed: jax.Array) -> jax.Array:
    """V [kernel_height * points * parts * in_channels, rows, tiles, batch] of the `points` of one product."""
    plan, points = static
    rows, parts = plan.starts
    columns = [
        _weighted_sum(
            plan.matrices[2][:, point],
            [strided(framed, start + plan.before[1], plan.tiles, plan.steps[1], 2) for start in starts],
        )
        for point in points
        for starts in parts
    ]
    pieces = [
        strided(column, start + plan.before[0], plan.size[0], plan.steps[0], 1) for start in rows for column in columns
    ]
    return lax.concatenate(pieces, 0)


@compiled_apart
def _rows_transposed(static: tuple[Plan, tuple[int, ...]], gathered: jax.Array) -> list[jax.Array]:
    """From the gradient of V that of each of `_gather`'s columns."""
    plan, points = static
    rows, count = plan.starts[0], len(points) * len(plan.starts[1])
    channels = gathered.shape[0] // (len(rows) * count)
    return [
        overlap_add(
            [strided(gathered, (row * count + column) * channels, channels, 1, 0) for row in range(len(rows))],
            rows,
            plan.steps[0],
            plan.image[0],
            1,
        )
        for column in range(count)
    ]


@compiled_apart
def _columns_transposed(plan: Plan, *columns: jax.Array) -> jax.Array:
    """From the gradients of `_gather`'s columns, of all points, that of x."""
    inputs, all_starts = [], []
    parts = plan.starts[1]
    for part, starts in enumerate(parts):
        inputs += [_weighted_sum(weights, columns[part :: len(parts)]) for weights in plan.matrices[2]]
        all_starts += starts
    return overlap_add(inputs, all_starts, plan.steps[1], plan.image[1], 2)


@compiled_apart
def _filters(plan: Plan, kernel: jax.Array) -> list[jax.Array]:
    """U [kernel_height * points * parts * in_channels, out_channels] of each product."""
    height, width, channels, filters = kernel.shape
    kernel = jnp.pad(kernel, ((0, 0), (0, plan.groups * plan.taps * plan.phases - width), (0, 0), (0, 0)))
    kernel = kernel.reshape(height, plan.groups, plan.taps, plan.phases * channels, filters)
    taps = [kernel[:, :, tap] for tap in range(plan.taps)]
    return [
        jnp.stack([_weighted_sum(plan.matrices[1][point], taps) for point in points], 1).reshape(-1, filters)
        for points in plan.products
    ]


@compiled_apart
def _filters_transposed(plan: Plan, *gradients: jax.Array) -> jax.Array:
    height, width, filters = *plan.window, gradients[0].shape[1]
    values = [
        gradient.reshape(height, len(points), plan.groups, -1, filters)[:, index]
        for points, gradient in zip(plan.products, gradients, strict=True)
        for index in range(len(points))
    ]
    taps = [_weighted_sum(weights, values) for weights in plan.matrices[1].T]
    return jnp.stack(taps, 2).reshape(height, plan.groups * plan.taps * plan.phases, -1, filters)[:, :width]


@compiled_apart
def _combine(plan: Plan, *products: jax.Array) -> jax.Array:
    """z [out_channels, rows, columns, batch] from U_a^T V_a."""
    tile = jnp.stack([_weighted_sum(weights, products) for weights in plan.matrices[0].T], 3)
    filters, rows, _, _, batch = tile.shape
    return tile.reshape(filters, rows, -1, batch)[:, :, : plan.size[1]]


@compiled_apart
def _combine_transposed(static: tuple[Plan, int], cotangent: jax.Array) -> jax.Array:
    """From the gradient of z that of product `point`."""
    plan, point = static
    tile = [strided(cotangent, column, plan.tiles, plan.tile, 2) for column in range(plan.tile)]
    return _weighted_sum(plan.matrices[0][point], tile)
