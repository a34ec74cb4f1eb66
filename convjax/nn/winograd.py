"""Convolution as a few matrix products, with its gradients: `patches` and `winograd`.

Images are `[channels, height, width, batch]`, kernels `[kernel_height, kernel_width, in_channels, out_channels]`.

**One row.** Winograd's minimal filtering F(m, r) (Winograd 1980; Lavin & Gray 2016) computes m neighbouring outputs of
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

**Patches** (Chellapilla, Puri & Simard 2006) is the same with m = 1, B the identity and A all ones: sum_a is then left
to one single matrix product over all a, whose V is the matrix of receptive fields.

All three steps are linear in x and in the kernel, so the gradients are the transposed steps around the transposed
products: dU_a = V_a dM_a^T and dV_a = U_a dM_a. They are written out below, because JAX's own transposes of slices are
slow (see `convjax.nn.windows`).
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

from convjax.config import Window
from convjax.nn.windows import one_pass, overlap_add, strided

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
    """

    image: Window
    window: Window
    strides: Window
    before: Window
    size: Window
    tile: int = 1

    @property
    def tiles(self) -> int:
        return -(-self.size[1] // self.tile)

    @property
    def phases(self) -> int:
        """Sets of columns that a horizontal stride tells apart; `patches` needs no such distinction."""
        return 1 if self.tile == 1 else self.strides[1]

    @property
    def taps(self) -> int:
        """Width of the kernel within one phase, the r of F(m, r)."""
        return -(-self.window[1] // self.phases)

    @property
    def matrices(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if self.tile == 1:
            identity = np.eye(self.taps, dtype=np.float32)
            return np.ones((self.taps, 1), np.float32), identity, identity
        return transforms(self.tile, self.taps)

    @property
    def column_starts(self) -> list[list[int]]:
        """For each phase the first column that meets each of a tile's inputs."""
        inputs = self.matrices[2].shape[0]
        return [[i * self.phases + phase - self.before[1] for i in range(inputs)] for phase in range(self.phases)]

    @property
    def column_stride(self) -> int:
        """Columns from one tile to the next."""
        return self.strides[1] * self.tile

    @property
    def row_starts(self) -> list[int]:
        return [row - self.before[0] for row in range(self.window[0])]


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
) -> tuple[jax.Array, tuple[list[jax.Array], list[jax.Array]]]:
    v, u = _gather(plan, x), _filters(plan, kernel)
    return _combine(plan, *[_times(u_a, v_a, 0) for u_a, v_a in zip(u, v, strict=True)]), (v, u)


def _convolve_backward(
    plan: Plan, residuals: tuple[list[jax.Array], list[jax.Array]], cotangent: jax.Array
) -> tuple[jax.Array, jax.Array]:
    v, u = residuals
    products = _combine_transposed(plan, cotangent)
    kernel = _filters_transposed(plan, *[_inner(v_a, m_a) for v_a, m_a in zip(v, products, strict=True)])
    columns = _rows_transposed(plan, *[_times(u_a, m_a, 1) for u_a, m_a in zip(u, products, strict=True)])
    return _columns_transposed(plan, *columns), kernel


convolve.defvjp(_convolve_forward, _convolve_backward)


def _times(matrix: jax.Array, images: jax.Array, axis: int) -> jax.Array:
    """The product of `matrix`, summed over `axis`, with `[channels, rows, tiles, batch]`."""
    flat = images.reshape(images.shape[0], -1)
    return lax.dot_general(matrix, flat, (((axis,), (0,)), ((), ()))).reshape(-1, *images.shape[1:])


def _inner(a: jax.Array, b: jax.Array) -> jax.Array:
    """[channels of a, channels of b]: products summed over rows, tiles and batch."""
    # Flat: left to itself XLA transposes operands with several axes to sum over.
    a, b = a.reshape(a.shape[0], -1), b.reshape(b.shape[0], -1)
    return lax.dot_general(a, b, (((1,), (1,)), ((), ())))


def _weighted_sum(weights: np.ndarray, terms: Sequence[jax.Array]) -> jax.Array:
    """sum_i weights[i] * terms[i], skipping zeros; at least one weight is not zero."""
    scaled = [
        term if weight == 1 else term * np.asarray(weight, term.dtype)
        for weight, term in zip(weights, terms, strict=True)
        if weight != 0
    ]
    return functools.reduce(jnp.add, scaled)


@one_pass
def _gather(plan: Plan, x: jax.Array) -> list[jax.Array]:
    """V_a, each [kernel_height * phases * in_channels, rows * tiles * batch]; for `patches` one, of all a."""
    x = _framed(plan, x)
    points = []
    for weights in plan.matrices[2].T:
        columns = [
            _weighted_sum(
                weights,
                [strided(x, start + plan.before[1], plan.tiles, plan.column_stride, 2) for start in starts],
            )
            for starts in plan.column_starts
        ]
        points.append(
            [
                strided(column, start + plan.before[0], plan.size[0], plan.strides[0], 1)
                for start in plan.row_starts
                for column in columns
            ]
        )
    if plan.tile == 1:
        points = [[piece for pieces in zip(*points, strict=True) for piece in pieces]]
    return [lax.concatenate(pieces, 0) for pieces in points]


def _framed(plan: Plan, x: jax.Array) -> jax.Array:
    """`x` with the zeros around it that the kernel meets."""
    last_row = plan.row_starts[-1] + (plan.size[0] - 1) * plan.strides[0]
    last_column = plan.column_starts[-1][-1] + (plan.tiles - 1) * plan.column_stride
    after = max(0, last_row + 1 - plan.image[0]), max(0, last_column + 1 - plan.image[1])
    if plan.before == after == (0, 0):
        return x
    ends = ((0, 0, 0), (plan.before[0], after[0], 0), (plan.before[1], after[1], 0), (0, 0, 0))
    return lax.pad(x, jnp.zeros((), x.dtype), ends)


@one_pass
def _filters(plan: Plan, kernel: jax.Array) -> list[jax.Array]:
    """U_a, each [kernel_height * phases * in_channels, out_channels]; for `patches` one, of all a."""
    if plan.tile == 1:
        return [kernel.reshape(-1, kernel.shape[3])]
    height, width, channels, filters = kernel.shape
    kernel = jnp.pad(kernel, ((0, 0), (0, plan.taps * plan.phases - width), (0, 0), (0, 0)))
    kernel = kernel.reshape(height, plan.taps, plan.phases * channels, filters)
    taps = [kernel[:, tap] for tap in range(plan.taps)]
    return [_weighted_sum(weights, taps).reshape(-1, filters) for weights in plan.matrices[1]]


@one_pass
def _filters_transposed(plan: Plan, *filters: jax.Array) -> jax.Array:
    height, width = plan.window
    if plan.tile == 1:
        return filters[0].reshape(height, width, -1, filters[0].shape[1])
    taps = [_weighted_sum(weights, filters) for weights in plan.matrices[1].T]
    kernel = jnp.stack([tap.reshape(height, -1, tap.shape[1]) for tap in taps], 1)
    return kernel.reshape(height, plan.taps * plan.phases, -1, kernel.shape[3])[:, :width]


@one_pass
def _combine(plan: Plan, *products: jax.Array) -> jax.Array:
    """z [out_channels, rows, columns, batch] from U_a^T V_a."""
    if plan.tile == 1:
        return products[0]
    tile = jnp.stack([_weighted_sum(weights, products) for weights in plan.matrices[0].T], 3)
    filters, rows, _, _, batch = tile.shape
    return tile.reshape(filters, rows, -1, batch)[:, :, : plan.size[1]]


@one_pass
def _combine_transposed(plan: Plan, cotangent: jax.Array) -> list[jax.Array]:
    if plan.tile == 1:
        return [cotangent]
    beyond = plan.tiles * plan.tile - plan.size[1]
    if beyond:
        cotangent = jnp.pad(cotangent, ((0, 0), (0, 0), (0, beyond), (0, 0)))
    tile = [strided(cotangent, column, plan.tiles, plan.tile, 2) for column in range(plan.tile)]
    return [_weighted_sum(weights, tile) for weights in plan.matrices[0]]


@one_pass
def _rows_transposed(plan: Plan, *gathered: jax.Array) -> list[jax.Array]:
    """From the gradients of V_a those of the transformed columns, a after a, phase within a."""
    points = plan.matrices[2].shape[1]
    in_one = points if plan.tile == 1 else plan.phases
    channels = gathered[0].shape[0] // (plan.window[0] * in_one)

    def piece(row: int, point: int, phase: int) -> jax.Array:
        array, column = (gathered[0], point) if plan.tile == 1 else (gathered[point], phase)
        return strided(array, (row * in_one + column) * channels, channels, 1, 0)

    return [
        overlap_add(
            [piece(row, point, phase) for row in range(plan.window[0])],
            plan.row_starts,
            plan.strides[0],
            plan.image[0],
            1,
        )
        for point in range(points)
        for phase in range(plan.phases)
    ]


@one_pass
def _columns_transposed(plan: Plan, *columns: jax.Array) -> jax.Array:
    inputs, starts = [], []
    for phase in range(plan.phases):
        inputs += [_weighted_sum(weights, columns[phase :: plan.phases]) for weights in plan.matrices[2]]
        starts += plan.column_starts[phase]
    return overlap_add(inputs, starts, plan.column_stride, plan.image[1], 2)
