"""Closed-form arithmetic of a network: output sizes, padding, receptive fields, parameters, FLOPs. No JAX.

`plan` turns a RunConfig into a tuple of `Layer`s with concrete shapes. The Flax modules, the summary and the tables all
follow from that one plan. Sizes: Dumoulin & Visin (2016), "A guide to convolution arithmetic for deep learning";
receptive fields: Araujo, Norris & Sim (2019), Distill.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from convjax.config import RunConfig
from convjax.errors import UserError
from convjax.notation import Window

Shape = tuple[int, ...]

_LARGEST_LAYER = 2**31


@dataclasses.dataclass(frozen=True)
class ReceptiveField:
    """The part of the input that one position of a feature map depends on, per axis (vertical, horizontal).

    Attributes:
      size: input pixels one position depends on (unclipped by the borders).
      jump: input pixels between neighboring positions.
    """

    size: Window = (1, 1)
    jump: Window = (1, 1)

    def through(self, window: Window, strides: Window) -> "ReceptiveField":
        """The receptive field after a further convolution or pooling."""
        return ReceptiveField(
            size=(
                self.size[0] + (window[0] - 1) * self.jump[0],
                self.size[1] + (window[1] - 1) * self.jump[1],
            ),
            jump=(self.jump[0] * strides[0], self.jump[1] * strides[1]),
        )


@dataclasses.dataclass(frozen=True)
class Layer:
    """One layer with its shapes.

    Attributes:
      name: Keras's name in the chapter's summary, `conv2d_1`; also the key of the layer's parameters.
      kind: Keras's class, such as `Conv2D`; `LocallyConnected2D` is Keras 2's, `PermutePixels` our own.
      input_shape, output_shape: without the batch: `(height, width, channels)` or `(units,)`.
      window, strides, padding: of a convolution or pooling.
      activation: of a convolution or dense layer; the last dense layer has `softmax`, or `sigmoid` where one unit
        distinguishes two classes.
      is_output: whether it is the last layer, whose activation is part of the loss.
      rate: of a dropout layer.
      parameters: weights and biases, and running statistics.
      statistics: of these parameters, those that training updates without gradients.
      flops: of one image's forward pass. A multiply-add counts as two; biases, activations and pooling are not
        counted, as usual.
      receptive_field: of one position of the output; None after Flatten, where there are no positions.
    """

    name: str
    kind: str
    input_shape: Shape
    output_shape: Shape
    window: Window = (1, 1)
    strides: Window = (1, 1)
    padding: str = "valid"
    activation: str = "linear"
    is_output: bool = False
    rate: float = 0.0
    parameters: int = 0
    statistics: int = 0
    flops: int = 0
    receptive_field: ReceptiveField | None = None

    @property
    def channels(self) -> int:
        """Output channels, or units of a dense layer."""
        return self.output_shape[-1]

    @property
    def activation_bytes(self) -> int:
        """Bytes of the output of one image in float32."""
        return 4 * math.prod(self.output_shape)


def output_size(size: int, window: int, stride: int, padding: str) -> int:
    """Positions of a window along one axis: `valid` (n - k) // s + 1 (0 where it does not fit), `same` ceil(n / s)."""
    if padding == "same":
        return -(-size // stride)
    return max(0, (size - window) // stride + 1)


def same_padding(size: int, window: int, stride: int) -> tuple[int, int]:
    """Zeros before and after one axis for `same`; the odd one goes after, as in TensorFlow, Keras and XLA."""
    total = max(0, (output_size(size, window, stride, "same") - 1) * stride + window - size)
    return total // 2, total - total // 2


def pad_amounts(shape: Sequence[int], window: Window, strides: Window, padding: str) -> tuple[Window, Window]:
    """Zeros `((top, bottom), (left, right))` around `[height, width]`."""
    if padding == "valid":
        return (0, 0), (0, 0)
    return (
        same_padding(shape[0], window[0], strides[0]),
        same_padding(shape[1], window[1], strides[1]),
    )


def output_shape(shape: Sequence[int], window: Window, strides: Window, padding: str) -> tuple[int, int]:
    """`(height, width)` of a convolution's or pooling's output over `[height, width]`."""
    return (
        output_size(shape[0], window[0], strides[0], padding),
        output_size(shape[1], window[1], strides[1], padding),
    )


@dataclasses.dataclass(frozen=True)
class Axis:
    """Where the windows of a convolution or pooling sit along one axis, rows or columns, of its input.

    Tiles are counted from 0, the first of the input; those of padding before it are negative.

    Attributes:
      size: tiles of the input.
      window, stride: in tiles.
      padding: `valid` or `same`.
    """

    size: int
    window: int
    stride: int
    padding: str

    @property
    def count(self) -> int:
        """How many windows there are: the size of the output."""
        return output_size(self.size, self.window, self.stride, self.padding)

    @property
    def pads(self) -> tuple[int, int]:
        """Tiles of padding before and after the input."""
        return same_padding(self.size, self.window, self.stride) if self.padding == "same" else (0, 0)

    @property
    def starts(self) -> range:
        """The first tile of each window."""
        return range(-self.pads[0], -self.pads[0] + self.count * self.stride, self.stride)

    @property
    def lost(self) -> tuple[int, int]:
        """The border effect: tiles at either end around which no window fits into the input, whatever the stride.

        An even window has no center tile: the odd one is lost at the end, where `same` pads it.
        """
        return (0, 0) if self.padding == "same" else ((self.window - 1) // 2, self.window // 2)

    @property
    def unread(self) -> tuple[int, int]:
        """Tiles that no window looks at: between windows, where the stride is larger, and after the last window."""
        gap = max(0, self.stride - self.window)
        covered = self.starts[-1] + self.window if self.count else 0
        return gap * max(0, self.count - 1), max(0, self.size - covered)

    @property
    def padded(self) -> tuple[int, int]:
        """Windows that look at padding, before and after the input."""
        before, after = self.pads
        return min(self.count, -(-before // self.stride)), min(self.count, -(-after // self.stride))

    def readers(self, tile: int) -> int:
        """How many windows look at a tile of the input."""
        last = (tile + self.pads[0]) // self.stride
        first = -(-(tile + self.pads[0] - self.window + 1) // self.stride)
        return max(0, min(last, self.count - 1) - max(first, 0) + 1)


def axes_of(layer: Layer) -> tuple[Axis, Axis]:
    """Rows and columns of a convolution or pooling."""
    rows, columns = (
        Axis(size, window, stride, layer.padding)
        for size, window, stride in zip(layer.input_shape[:2], layer.window, layer.strides, strict=True)
    )
    return rows, columns


_STEMS = {
    "PermutePixels": "permute_pixels",
    "Conv2D": "conv2d",
    "LocallyConnected2D": "locally_connected2d",
    "BatchNormalization": "batch_normalization",
    "LayerNormalization": "layer_normalization",
    "Activation": "activation",
    "MaxPooling2D": "max_pooling2d",
    "AveragePooling2D": "average_pooling2d",
    "GlobalAveragePooling2D": "global_average_pooling2d",
    "Flatten": "flatten",
    "Dropout": "dropout",
    "Dense": "dense",
}


def plan(config: RunConfig, image_shape: Sequence[int], num_classes: int) -> tuple[Layer, ...]:
    """The layers of the network that `config` describes, for images `[height, width, channels]`.

    Raises:
      UserError: the stack is impossible; the message names the layer, its input shape and the flag to change.
    """
    stack = _Stack(config, tuple(image_shape))
    convolutions, hidden = len(config.layer_channels), len(config.hidden_units)
    if config.pixels == "permuted":
        stack.add("PermutePixels", stack.shape)
    for index in range(convolutions):
        stack.convolve(index)
        stack.normalize(index)
        stack.pool(index)
        if index < convolutions - 1:
            stack.drop(index)
    if config.head == "gap":
        stack.add("GlobalAveragePooling2D", stack.shape[-1:])
    else:
        stack.add("Flatten", (math.prod(stack.shape),))
    if convolutions:
        stack.drop(convolutions - 1)
    for index in range(convolutions, convolutions + hidden):
        stack.dense(config.hidden_units[index - convolutions], config.layer_activations[index])
        stack.drop(index)
    if config.model == "small_data" and num_classes == 2:
        stack.dense(1, "sigmoid", is_output=True)
    else:
        stack.dense(num_classes, "softmax", is_output=True)
    return tuple(stack.layers)


class _Stack:
    """The layers so far. Follows the shape and the receptive field, and names layers as Keras does."""

    def __init__(self, config: RunConfig, image_shape: Shape):
        self.config, self.shape = config, image_shape
        self.layers: list[Layer] = []
        self._field: ReceptiveField = ReceptiveField()
        self._counts: dict[str, int] = {}

    def add(self, kind: str, output: Shape, **attributes: Any) -> None:
        """Appends a layer, named after its kind and how many of this kind there are."""
        name = self._next_name(kind)
        self._counts[kind] = self._counts.get(kind, 0) + 1
        if len(output) == 3:
            attributes["receptive_field"] = self._field
        layer = Layer(name, kind, self.shape, output, **attributes)
        if max(math.prod(output), layer.parameters) > _LARGEST_LAYER:
            flag = "dense_units" if kind == "Dense" else "channels"
            raise UserError(f"{name} ({kind}) is too large for input {self.shape}; make --{flag} smaller")
        self.layers.append(layer)
        self.shape = output

    def _next_name(self, kind: str) -> str:
        return f"{_STEMS[kind]}_{self._counts.get(kind, 0) + 1}"

    def convolve(self, index: int) -> None:
        """The convolution number `index`, from 0."""
        config = self.config
        kind = "LocallyConnected2D" if config.model == "local" else "Conv2D"
        channels, window = config.layer_channels[index], config.layer_kernel_sizes[index]
        strides, padding = config.layer_strides[index], config.layer_paddings[index]
        height, width, depth = self.shape
        rows, columns = output_shape((height, width), window, strides, padding)
        if 0 in (rows, columns):
            raise UserError(
                f"{self._next_name(kind)} ({kind}) cannot take input {self.shape}: "
                f"its {window[0]}x{window[1]} kernel is larger than the {height}x{width} feature map with "
                "padding=valid; make --kernel_size or --stride smaller, use --padding=same, fewer layers (--channels), "
                "or pool less (--pool)"
            )
        self._field = self._field.through(window, strides)
        weights = window[0] * window[1] * depth * channels
        self.add(
            kind,
            (rows, columns, channels),
            window=window,
            strides=strides,
            padding=padding,
            activation="linear" if config.norm != "none" else config.layer_activations[index],
            parameters=(weights + channels) * (rows * columns if kind == "LocallyConnected2D" else 1),
            flops=2 * weights * rows * columns,
        )

    def normalize(self, index: int) -> None:
        """The normalization of a convolution's output and then its activation, if there is one."""
        if self.config.norm == "none":
            return
        if self.config.norm == "batch":
            self.add("BatchNormalization", self.shape, parameters=4 * self.shape[-1], statistics=2 * self.shape[-1])
        else:
            self.add("LayerNormalization", self.shape, parameters=2 * self.shape[-1])
        self.add("Activation", self.shape, activation=self.config.layer_activations[index])

    def pool(self, index: int) -> None:
        """The pooling after a convolution, if there is one."""
        config = self.config
        if config.layer_pools[index] == "none":
            return
        kind = "MaxPooling2D" if config.layer_pools[index] == "max" else "AveragePooling2D"
        window, strides = config.layer_pool_sizes[index], config.layer_pool_strides[index]
        height, width, channels = self.shape
        output = output_shape((height, width), window, strides, "valid")
        if 0 in output:
            raise UserError(
                f"{self._next_name(kind)} ({kind}) cannot take input {self.shape}: its {window[0]}x{window[1]} window "
                f"is larger than the {height}x{width} feature map and leaves nothing; make --pool_size smaller, "
                "use --padding=same, fewer layers (--channels) or --pool=none"
            )
        self._field = self._field.through(window, strides)
        self.add(kind, (*output, channels), window=window, strides=strides)

    def drop(self, index: int) -> None:
        """The dropout after a convolution or hidden dense layer, if there is one."""
        if rate := self.config.layer_dropout[index]:
            self.add("Dropout", self.shape, rate=rate)

    def dense(self, units: int, activation: str, *, is_output: bool = False) -> None:
        """A dense layer."""
        weights = self.shape[0] * units
        self.add(
            "Dense",
            (units,),
            activation=activation,
            is_output=is_output,
            parameters=weights + units,
            flops=2 * weights,
        )


def input_span(layers: Sequence[Layer], position: Sequence[int]) -> tuple[slice, slice]:
    """Rows and columns of the input that a position `(row, column)` of the last layer's feature map depends on.

    This is its receptive field, cut off at the borders of the input and of every feature map between. `layers` are a
    plan's, from the first on, up to one with positions.
    """
    spans = [(position[0], position[0]), (position[1], position[1])]
    for layer in reversed(layers):
        pads = pad_amounts(layer.input_shape[:2], layer.window, layer.strides, layer.padding)
        spans = [
            (max(0, low * stride - pad), min(size, high * stride - pad + window) - 1)
            for (low, high), size, window, stride, (pad, _) in zip(
                spans, layer.input_shape[:2], layer.window, layer.strides, pads, strict=True
            )
        ]
    rows, columns = (slice(low, high + 1) for low, high in spans)
    return rows, columns


def class_count(layers: Sequence[Layer]) -> int:
    """How many classes a plan's network tells apart: the units of its last layer, or two where that is a sigmoid."""
    return 2 if layers[-1].activation == "sigmoid" else layers[-1].output_shape[0]


def total_parameters(layers: Sequence[Layer]) -> int:
    """Parameters of all layers, running statistics included."""
    return sum(layer.parameters for layer in layers)


def total_flops(layers: Sequence[Layer]) -> int:
    """Floating-point operations of one image's forward pass; see `Layer.flops`."""
    return sum(layer.flops for layer in layers)
