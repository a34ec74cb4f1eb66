"""What can be shown of a run: each function gives a chapter of the gallery, or says in one line why it cannot.

Each is a function of a `Subject`.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from convjax.analysis.plots.run import most_confidently_wrong
from convjax.analysis.report.html import capital
from convjax.errors import UserError
from convjax.explain import activations, filters, saliency
from convjax.explain.pictures import architecture, maps, training, windows
from convjax.explain.pictures import filters as filter_pictures
from convjax.explain.pictures.animation import Animation
from convjax.explain.pictures.gallery import Chapter, Picture
from convjax.explain.pictures.parts import grey, shape_text
from convjax.explain.pictures.subject import Subject
from convjax.explain.pictures.why import Explained, why_sheet, wrong_sheet
from convjax.explain.sliding import Sliding, slide_kernel, slide_maximum
from convjax.nn.geometry import Layer, class_count, total_flops, total_parameters
from convjax.training.checkpoint import kept_steps, load_params
from convjax.training.steps import predict, steps_per_epoch

_RESPONSES = 4
_WRONG = 6
_MOST_FILM = 40
_FEW_POSITIONS = 6
_OCCLUSIONS = 24
"""Squares along a side of an occlusion map, about."""

# A vertical edge (Prewitt), for networks without a convolution of their own.
_EDGE = np.array([[-1.0, 0.0, 1.0]] * 3)

_NO_MAPS = "a dense network has no feature maps: its first layer already mixes all pixels"


def model(subject: Subject) -> Chapter:
    """The layers as a diagram and to scale."""
    layers = subject.layers
    total = f"{total_parameters(layers):,} parameters, {total_flops(layers):,} FLOPs an image"
    words = "; ".join(
        f"{layer.name}: {shape_text(layer.output_shape)}, {layer.parameters:,} parameters" for layer in layers
    )
    return Chapter(
        "The model as a whole",
        "Images go in at the top (left), logits come out at the bottom (right).",
        [
            Picture(
                "layers",
                "The layers, with shapes, parameters and FLOPs",
                words,
                "Blue: layers that slide windows with weights; orange or red: pooling; green: dense layers. Shapes are "
                "of the output, rows x columns x channels.",
                lambda theme: architecture.layer_diagram(layers, f"The layers: {total}", theme=theme),
            ),
            Picture(
                "architecture",
                "The architecture drawn to scale",
                words,
                "One scale for rows (up), columns (back) and all feature maps; channels to the right, four to a pixel "
                "or closer; dense layers are columns of units.",
                lambda theme: architecture.scale_drawing(layers, f"The architecture to scale: {total}", theme=theme),
            ),
        ],
    )


def feature_maps(subject: Subject) -> Chapter:
    """Every layer's output for the chosen images, and single filters' responses."""
    layers = subject.layers
    if not activations.map_layers(layers):
        raise UserError(_NO_MAPS)
    images = subject.images[list(subject.chosen)]
    found = activations.feature_maps(layers, subject.params, images)
    pictures: list[Picture | Animation] = []
    first = layers[0] if layers[0].kind == "Conv2D" else None
    for place, index in enumerate(subject.chosen):
        label = f"test image {index}, class {subject.name(subject.labels[index])}"
        own = {name: values[place] for name, values in found.items()}
        pictures.append(
            Picture(
                f"feature_maps-{index}",
                f"Feature maps of {label}",
                f"Outputs of {len(layers)} layers as grids of small images, one a channel.",
                "Every small image is one channel of a layer's output: where in the image its filter found what it "
                "looks for. Every layer has its own scale, which begins at 0.",
                functools.partial(
                    _themed, maps.feature_sheet, images[place], own, layers, subject.class_names,
                    f"Feature maps of {label}",
                ),
            )
        )  # fmt: skip
        if first is None:
            continue
        channels = activations.distinct_channels(own[first.name], min(_RESPONSES, first.output_shape[-1]))
        responses = activations.responses(layers, subject.params, images[place : place + 1], first.name)[0]
        kernels = np.moveaxis(np.asarray(subject.params[first.name]["kernel"]).mean(2), -1, 0)
        pictures.append(
            Picture(
                f"responses-{index}",
                f"Response maps of {label}",
                f"Image, filter, response and output of channels {', '.join(map(str, channels))} of {first.name}.",
                "The chapter's response map: a 2D map of the presence of the filter's pattern at every place of the "
                "input. Shown are channels that answer this image, the most unlike one another.",
                functools.partial(
                    _themed, maps.response_plot, images[place], kernels[channels], responses[..., channels],
                    own[first.name][..., channels], channels, first, f"{first.name}'s response maps of {label}",
                ),
            )
        )  # fmt: skip
    text = "What the network makes of an image, layer after layer: more channels, fewer places, from strokes to parts."
    return Chapter("Feature maps", text, pictures)


def filter_sheets(subject: Subject) -> Chapter:
    """First-layer kernels, and the image that excites each unit most."""
    layers, params = subject.layers, subject.params
    pictures: list[Picture | Animation] = []
    first, kernels = filters.kernel_images(layers, params)
    what = "weights of the first layer's units" if first.kind == "Dense" else "kernels of the first layer"
    pictures.append(
        Picture(
            "filters",
            capital(what),
            f"{len(kernels)} small images of weights, blue negative, orange positive.",
            "Every small image is what one filter multiplies the pixels below its window with.",
            functools.partial(_themed, filter_pictures.kernel_sheet, kernels, first, capital(what)),
        )
    )
    looked_at = [layer for layer in layers if layer.parameters and layer is not layers[-1] and layer.kind != "Dense"]
    if not looked_at:
        looked_at = [layer for layer in layers if layer.parameters][:1]
    for layer in dict.fromkeys([*looked_at, layers[-1]]):
        last = layer is layers[-1]
        units = range(min(class_count(layers) if last else layer.output_shape[-1], filter_pictures.MOST))
        found = filters.maximise(layers, params, layer, units, jax.random.key(0))
        names = [str(subject.class_names[unit]) for unit in units] if last and len(units) <= 20 else None
        whose = "class" if last else f"unit of {layer.name}" if layer.kind == "Dense" else f"filter of {layer.name}"
        pictures.append(
            Picture(
                f"maximised-{layer.name}",
                f"The image that excites each {whose} most",
                f"{len(units)} images found by gradient ascent.",
                "Gradient ascent from grey noise, with random shifts, a penalty on total variation and decay to grey "
                "(Olah et al., 2017): grey pixels make no difference. An image is as large as what one position of the "
                "layer sees.",
                functools.partial(
                    _themed, filter_pictures.maximised_sheet, found, names, f"The image that excites each {whose} most"
                ),
            )
        )
    return Chapter(
        "Filters",
        "What each filter looks for: in the first layer its weights say so; deeper, the image that it answers most.",
        pictures,
    )


def convolution(subject: Subject) -> Chapter:
    """A sliding window over a piece of an image, with numbers, and over all of it."""
    index = subject.chosen[0]
    image = subject.images[index] / 255.0
    single, kernel, source = _demonstration(subject, image)
    side = max(5, max(kernel.shape) + 2)
    piece = windows.crop(single, side, kernel)
    size = shape_text((side, side))
    cases: list[tuple[str, str, str, Sliding]] = [
        ("valid", f"Convolution, padding valid: {size} input", "windows only where they fit: the map is smaller",
         slide_kernel(piece, kernel)),
        ("same", f"Convolution, padding same: {size} input", "zeros around it: the map is as large as the input",
         slide_kernel(piece, kernel, padding="same")),
        ("stride_2", f"Convolution, stride 2: {size} input", "every other window is left out",
         slide_kernel(piece, kernel, (2, 2))),
        ("max_pooling", f"Max-pooling 2{_TIMES}2: 4{_TIMES}4 input", "the largest of each window, windows side by side",
         slide_maximum(windows.crop(single, 4))),
    ]  # fmt: skip
    pictures: list[Picture | Animation] = []
    for name, title, meaning, sliding in cases:
        description = (
            f"A window moves over the input in {len(sliding.steps)} steps; each gives one value of the output."
        )
        pictures.append(
            Animation(
                f"convolution-{name}",
                title,
                description,
                f"{title}; {meaning}.",
                functools.partial(_animated, windows.window_frames, sliding, title),
                900 if len(sliding.steps) > 9 else 1400,
            )
        )
        pictures.append(
            Picture(
                f"convolution-{name}-steps",
                f"{title}, step by step",
                description,
                "The same, standing still.",
                functools.partial(_themed, windows.window_strip, sliding, f"{title}, some of its steps"),
            )
        )
    whole = slide_kernel(single, kernel)
    title = f"The whole image: {shape_text(whole.size)} to {shape_text(whole.output.shape)}"
    pictures.append(
        Animation(
            "convolution-image",
            title,
            "A window moves over the image; its map fills row by row.",
            f"{title}: the response map of this filter over the whole input.",
            functools.partial(_animated, windows.window_frames, whole, title),
            250,
        )
    )
    text = (
        f"The input is a piece of test image {index} (0 black, 1 white, rounded), the kernel {source}. Each step "
        "multiplies the window's pixels with the kernel and adds up: one value of the map. Bias and activation are "
        "left out."
    )
    return Chapter("How a convolution works", text, pictures)


_TIMES = "\N{MULTIPLICATION SIGN}"


def _demonstration(
    subject: Subject, image: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], str]:
    """One channel of the image, one filter over it, and where the filter is from."""
    first = subject.layers[0]
    if first.kind != "Conv2D" or max(first.window) > 7 or min(first.window) < 2:
        return grey(image), _EDGE, "a vertical edge (the network's first layer has no small window)"
    kernels = np.asarray(subject.params[first.name]["kernel"], np.float64)
    found = activations.feature_maps(subject.layers, subject.params, subject.images[subject.chosen[0]][None])
    # Of the filters that answer the one that is most of an edge: as much below zero as above.
    answering = activations.strongest_channels(found[first.name][0], max(1, kernels.shape[-1] // 2))
    contrast = np.minimum(kernels[:, :, 0].max((0, 1)), -kernels[:, :, 0].min((0, 1)))
    channel = max(answering, key=lambda each: contrast[each])
    source = f"channel {channel} of {first.name}"
    if image.shape[-1] > 1:
        source += f", its weights for the first of the input's {image.shape[-1]} channels alone"
    return image[..., 0], np.round(kernels[:, :, 0, channel], 2), source


def _explain(
    subject: Subject, indices: Sequence[int], classes: Sequence[int], labels: Sequence[str]
) -> list[Explained]:
    """Maps for pairs of image and class."""
    layers, params = subject.layers, subject.params
    images, wanted = subject.images[list(indices)], np.asarray(classes)
    plain = saliency.gradients(layers, params, images, wanted).sum(-1)
    smooth = saliency.smooth_gradients(layers, params, images, wanted, jax.random.key(0)).sum(-1)
    cams: list[dict[str, NDArray[np.float64]]] = [{} for _ in indices]
    for layer in _cam_layers(subject):
        coarse = saliency.grad_cam(layers, params, images, wanted, layer.name)
        centres = saliency.centres(layers, layer.name)
        for own, each in zip(cams, coarse, strict=True):
            own[layer.name] = saliency.place(each, centres, images.shape[1:3])
    falls = {index: _occlusion(subject, index) for index in dict.fromkeys(indices)}
    return [
        Explained(
            images[place], labels[place], plain[place], smooth[place], falls[index][..., wanted[place]], cams[place]
        )
        for place, index in enumerate(indices)
    ]


def _cam_layers(subject: Subject) -> list[Layer]:
    """The layer asked for, else the last with weights and positions; one earlier too where it has very few of these."""
    spatial = activations.map_layers(subject.layers)
    if subject.layer:
        return [activations.layer_named(spatial, subject.layer)]
    weighted = list(activations.filter_layers(subject.layers))
    few = bool(weighted) and min(weighted[-1].output_shape[:2]) < _FEW_POSITIONS
    return weighted[-2:] if few else weighted[-1:]


def _occlusion(subject: Subject, index: int) -> NDArray[np.float64]:
    """Falls at every pixel, `[height, width, classes]`: linear between the squares' middles."""
    image = subject.images[index]
    window, stride = _square(image.shape)
    falls = saliency.occlusion(subject.layers, subject.params, image, window=window, stride=stride)
    middles = tuple(np.arange(size) * stride + (window - 1) / 2 for size in falls.shape[:2])
    return np.stack([saliency.place(falls[..., each], middles, image.shape) for each in range(falls.shape[-1])], -1)


def _square(shape: Sequence[int]) -> tuple[int, int]:
    """Side and stride of the square that covers, in pixels."""
    least = min(shape[:2])
    return max(1, round(least / 5.6)), max(1, round(least / _OCCLUSIONS))


def _method(subject: Subject, most: int = 2) -> str:
    window, _ = _square(subject.images.shape[1:])
    layers = [f"{layer.name} ({shape_text(layer.output_shape[:2])} positions)" for layer in _cam_layers(subject)[:most]]
    cam = f" Grad-CAM at {' and '.join(layers)}, each position where its receptive field has its middle." * bool(layers)
    return f"occlusion by black squares of {window}{_TIMES}{window} pixels.{cam}"


def why(subject: Subject) -> Chapter:
    """Gradients, occlusion and Grad-CAM for the chosen images."""
    indices, classes, labels = [], [], []
    for index in subject.chosen:
        scores = subject.logits[index]
        order = np.argsort(-scores, kind="stable")
        true, predicted = int(subject.labels[index]), int(order[0])
        other, what = (true, "true") if true != predicted else (int(order[1]), "second")
        for which, word in ((predicted, "predicted, true" if true == predicted else "predicted"), (other, what)):
            indices.append(index)
            classes.append(which)
            labels.append(f"{subject.name(which)}: {_percent(scores, which)}\n{word}\n(image {index})")
    rows = _explain(subject, indices, classes, labels)
    title = "Why this class: maps for the predicted class and for the true or second one"
    return Chapter(
        "Why this class",
        "Which pixels speak for a class and which against it. Signed maps: orange raises the class's logit, blue "
        "lowers it. Gradients tell what a small change of a pixel would do, occlusion what covering it does, Grad-CAM "
        "which places' features count.",
        [
            Picture(
                "why",
                title,
                f"Maps over {len(rows)} pairs of image and class.",
                f"Gradient and smoothed gradient of the logit (mean over {saliency.SAMPLES} noisy copies); "
                f"{_method(subject)} Thin lines: the image's outline. Below each map its range.",
                functools.partial(_themed, why_sheet, rows, title, _detail(subject)),
            )
        ],
    )


def wrong(subject: Subject) -> Chapter:
    """The most confidently wrong test images with their maps."""
    found = most_confidently_wrong(subject.logits, subject.labels)
    if not len(found.indices):
        raise UserError(f"no test image is classified wrongly ({len(subject.labels):,} images)")
    count = min(_WRONG, len(found.indices))
    pairs = []
    for place in range(count):
        index, taken, true = int(found.indices[place]), int(found.predicted[place]), int(found.true[place])
        label = (
            f"taken for {subject.name(taken)}\n({_percent(subject.logits[index], taken)})\nis {subject.name(true)}\n"
            f"({_percent(subject.logits[index], true)})"
        )
        pairs.append((index, taken, true, label))
    rows = _explain(
        subject,
        [pair[0] for pair in pairs for _ in range(2)],
        [each for pair in pairs for each in pair[1:3]],
        [pair[3] for pair in pairs for _ in range(2)],
    )
    title = f"The {count} most confidently wrong of {len(found.indices):,} wrong test images"
    if count == 1:
        title = "The most confidently wrong test image"
    return Chapter(
        "Confidently wrong",
        "What the network saw in the images it was surest and wrong about.",
        [
            Picture(
                "wrong",
                title,
                "; ".join(pair[3].replace("\n", " ") for pair in pairs),
                f"For the class predicted (left) and the true class (right): {_method(subject, 1)} Below each map its "
                "range.",
                functools.partial(
                    _themed, wrong_sheet, list(zip(rows[::2], rows[1::2], strict=True)), title, _detail(subject)
                ),
            )
        ],
    )


def inside(subject: Subject) -> Chapter:
    """Norms and dead channels by epoch."""
    lines = [line for line in subject.lines if "weight_norm" in line]
    if not lines:
        raise UserError("metrics.jsonl has no norms of layers: the run was made with --nodiagnostics, or before them")
    last = lines[-1]
    dead = "; ".join(f"{layer} {100 * share:.0f} %" for layer, share in last.get("dead_channels", {}).items())
    return Chapter(
        "Inside while it trained",
        "Norms over a layer's weights and biases, and over its part of the gradient of the loss on the first training "
        "images. A dead channel gives the same output for all of these images at every place: with relu it never "
        "fires.",
        [
            Picture(
                "inside",
                "Norms of weights and gradients, dead channels",
                f"After epoch {last['epoch']} dead: {dead or 'not measured'}.",
                "After each epoch, layer by layer. The numbers are in metrics.jsonl, and in TensorBoard where "
                "the run has it.",
                functools.partial(_themed, training.inside_plot, lines, "Inside the layers, after each epoch"),
            )
        ],
    )


def film(subject: Subject) -> Chapter:
    """Accuracy, filters and feature maps over the checkpoints of all epochs."""
    kept, steps = kept_steps(subject.path), steps_per_epoch(subject.examples, subject.config.batch_size)
    ends = [step for step in kept if step % steps == 0]
    missing = subject.lines and len(ends) < len(subject.lines)
    if len(ends) < 2 or missing:
        raise UserError(
            f"the film needs the checkpoints of at least two epochs and all of them; {len(ends)} of "
            f"{len(subject.lines)} are kept: train again with --noresume --keep_checkpoints=0 and --epochs=2 or more"
        )
    last = len(ends) - 1
    ends = sorted({ends[round(i * last / (_MOST_FILM - 1))] for i in range(_MOST_FILM)}) if last >= _MOST_FILM else ends
    index = subject.chosen[0]
    image = subject.images[index]
    moments = [_moment(subject, step, step / steps, image) for step in ends]
    title = f"Training, with test image {index}"
    description = "; ".join(f"epoch {moment.epoch:g}: {100 * moment.accuracy:.2f} %" for moment in moments)
    return Chapter(
        "Training as a film",
        "Test accuracy, the first layer's weights and the outputs for one image, at every epoch's checkpoint.",
        [
            Animation(
                "film", title, description, "One frame an epoch. Scales are the same in all frames.",
                functools.partial(_animated, training.film_frames, moments, image, title), 900,
            ),
            Picture(
                "film-strip", f"{title}, epoch by epoch", description, "The same, standing still.",
                functools.partial(_themed, training.film_strip, moments, image, title),
            ),
        ],
    )  # fmt: skip


def _moment(subject: Subject, step: int, epoch: float, image: NDArray[np.uint8]) -> training.Moment:
    _, task, params = load_params(subject.path, step)
    logits = np.asarray(predict(params, subject.images, task=task))
    kernels = filters.kernel_images(task.layers, params)[1].mean(-1)
    found = activations.feature_maps(task.layers, params, image[None])
    spatial = [layer.name for layer in activations.filter_layers(task.layers)]
    accuracy = float(np.mean(np.argmax(logits, axis=-1) == subject.labels))
    return training.Moment(epoch, accuracy, kernels, {name: found[name][0] for name in spatial})


CHAPTERS: Mapping[str, Callable[[Subject], Chapter]] = {
    "model": model,
    "convolution": convolution,
    "feature_maps": feature_maps,
    "filters": filter_sheets,
    "why": why,
    "wrong": wrong,
    "inside": inside,
    "film": film,
}


def _detail(subject: Subject) -> str:
    return f"{subject.config.dataset}, seed {subject.config.seed}, after epoch {subject.epoch:g}"


def _percent(scores: NDArray[np.float32], index: int) -> str:
    wide = scores.astype(np.float64)
    share = 100 * np.exp(wide[index] - wide.max()) / np.exp(wide - wide.max()).sum()
    return ">99.99 %" if share > 99.99 else "<0.01 %" if share < 0.01 else f"{share:.2f} %"


def _themed(draw: Callable[..., Any], *arguments: Any) -> Any:
    *arguments, theme = arguments
    return draw(*arguments, theme=theme)


_animated = _themed
