"""The layer table as the chapter prints it."""

from convjax.config import RunConfig
from convjax.nn.geometry import plan
from convjax.nn.summary import layer_table

# The names, shapes and counts are the book's. Changing them is legitimate only with the chapter's network itself.
CHAPTER = [
    ("conv2d_1 (Conv2D)", "(None, 26, 26, 32)", 320),
    ("max_pooling2d_1 (MaxPooling2D)", "(None, 13, 13, 32)", 0),
    ("conv2d_2 (Conv2D)", "(None, 11, 11, 64)", 18_496),
    ("max_pooling2d_2 (MaxPooling2D)", "(None, 5, 5, 64)", 0),
    ("conv2d_3 (Conv2D)", "(None, 3, 3, 64)", 36_928),
    ("flatten_1 (Flatten)", "(None, 576)", 0),
    ("dense_1 (Dense)", "(None, 64)", 36_928),
    ("dense_2 (Dense)", "(None, 10)", 650),
]


def rows(text):
    """The cells of every line but rules; columns are two spaces or more apart."""
    lines = [line for line in text.splitlines() if line.strip("_=")]
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in lines]


def test_the_chapters_table():
    text = layer_table(plan(RunConfig(), (28, 28, 1), 10))
    head, *body = rows(text)
    assert head == ["Layer (type)", "Output Shape", "Param #"]
    assert body[: len(CHAPTER)] == [[name, shape, f"{count:,}"] for name, shape, count in CHAPTER]
    assert body[len(CHAPTER) :] == [
        ["Total params: 93,322"],
        ["Trainable params: 93,322"],
        ["Non-trainable params: 0"],
    ]
    # The chapter's first table stops before the classifier.
    assert sum(count for _, _, count in CHAPTER[:5]) == 55_744


def test_columns_stand_one_under_the_other():
    for verbose in (False, True):
        lines = layer_table(plan(RunConfig(), (28, 28, 1), 10), verbose=verbose).splitlines()
        table = [line for line in lines if line.strip("_=") and "params" not in line and "FLOPs:" not in line]
        column = table[0].index("Output Shape")
        assert all(line[column] == "(" for line in table[1:9])
        assert {len(line) for line in lines if not line.strip("_=")} == {len(lines[0])}
        assert max(map(len, lines)) == len(lines[0])


def test_verbose_adds_what_a_layer_sees_costs_and_keeps():
    head, *body = rows(layer_table(plan(RunConfig(), (28, 28, 1), 10), verbose=True))
    assert head[3:] == ["Receptive field", "FLOPs", "Activations"]
    # 2 * 26 * 26 * 3 * 3 * 1 * 32, and 4 bytes for each of 26 * 26 * 32.
    assert body[0][3:] == ["3x3", "389,376", "84.5 KiB"]
    assert body[1][3:] == ["4x4", "0", "21.1 KiB"]
    assert body[4][3:] == ["18x18", "663,552", "2.2 KiB"]
    assert body[7][3:] == ["all", "1,280", "40 B"]
    assert body[11] == ["Total FLOPs: 5,588,480 an image, forward (a multiply-add counts as two)"]
    assert body[12] == ["Memory, float32: parameters 364.5 KiB, activations 146.9 KiB an image"]


def test_the_baselines_table():
    body = rows(layer_table(plan(RunConfig(model="dense", dropout="0.5"), (28, 28, 1), 10)))[1:]
    assert body[:4] == [
        ["flatten_1 (Flatten)", "(None, 784)", "0"],
        ["dense_1 (Dense)", "(None, 512)", "401,920"],
        ["dropout_1 (Dropout)", "(None, 512)", "0"],
        ["dense_2 (Dense)", "(None, 10)", "5,130"],
    ]
    assert body[4] == ["Total params: 407,050"]
