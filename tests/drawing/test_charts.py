"""Confusion matrices, curves and sheets of cards, read back from their pictures."""

import time

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb

from attnlab.drawing import confusion, curves
from attnlab.drawing.cards import Card, Line, path_line, sheet
from attnlab.drawing.confusion import confusion_picture, most_confused, row_shares
from attnlab.drawing.curves import precision_picture
from attnlab.drawing.figures import RIGHT, WRONG
from attnlab.drawing.pixels import denormalise, fitted_to, percent, thumbnail

PAGE = np.zeros((1, 1, 3), np.uint8)


def names_of(classes):
    return [f"a class with the number {index}" for index in range(classes)]


def confused(classes):
    matrix = 9 * np.eye(classes, dtype=np.int64)
    matrix[0, -1] = 3
    return matrix


def test_rows_are_normalised_and_empty_ones_have_no_share():
    shares = row_shares(np.array([[8, 2, 0], [0, 0, 0], [1, 0, 3]]))
    assert shares[0].tolist() == [0.8, 0.2, 0.0]
    assert np.isnan(shares[1]).all()


def test_most_confused_pairs_come_by_count():
    matrix = np.array([[90, 3, 7], [0, 5, 3], [9, 0, 1]])
    assert most_confused(matrix, 3) == [(2, 0, 9, 10), (0, 2, 7, 100), (0, 1, 3, 100)]
    assert len(most_confused(matrix, 20)) == 4
    assert most_confused(np.diag([4, 4]), 5) == []
    assert matrix[0, 0] == 90  # The matrix itself is left alone.


@pytest.mark.parametrize("classes", [1, 2, 20, 40, 41, 1000])
def test_a_confusion_picture_is_bounded_and_cuts_nothing_off(classes):
    start = time.perf_counter()
    matrix = confused(classes)
    matrix[classes // 2] = 0
    drawn = confusion_picture(matrix, names_of(classes))
    assert time.perf_counter() - start < 6
    assert drawn.shape[0] < 1200
    assert drawn.shape[1] < 1500
    for edge in (drawn[:8], drawn[-8:], drawn[:, :8], drawn[:, -8:]):
        assert (edge == 255).all()


def test_cells_are_darker_the_more_they_hold_and_rows_without_images_are_grey():
    matrix = np.array([[60, 30, 10], [0, 0, 0], [0, 0, 9]])
    drawn = confusion_picture(matrix, ["a", "b", "c"]).astype(int)
    # The frame of the axes gives the place of the cells, of 60 pixels each.
    rows, columns = np.nonzero((drawn[..., 2] - drawn[..., 0] > 5) & (drawn[..., 2] > 60))
    top, left = rows.min(), columns.min()
    middle = [[drawn[top + 60 * i + 12, left + 60 * j + 12].sum() for j in range(3)] for i in range(3)]
    assert middle[0][0] < middle[0][1] < middle[0][2] < middle[2][0]
    grey = drawn[top + 64 : top + 116, left + 4 : left + 176]
    assert np.ptp(grey, axis=-1).max() < 12
    assert len(np.unique(grey)) > 2  # hatched


@pytest.mark.parametrize("classes", [60, 1000])
def test_of_many_classes_the_confused_ones_are_seen(classes):
    matrix = confused(classes)
    plain = confusion_picture(np.diag(np.diag(matrix)), names_of(classes))
    assert confusion_picture(matrix, names_of(classes)).shape[0] > plain.shape[0]
    # The same two classes, of however many, look the same but for the title and the whole matrix.
    cells = [confusion_picture(confused(k), names_of(k))[60:120, 180:300] for k in (classes, classes + 1)]
    assert cells[0].shape == cells[1].shape


@pytest.mark.parametrize("classes", [1, 10, 11, 80])
def test_curves_lie_at_their_precision(classes):
    precision = np.full((10, 101, classes), 0.0)
    precision[0] = 0.5
    drawn = precision_picture(precision, names_of(classes), "a title")
    blue = (drawn == (0, 114, 190)).all(-1)
    level = blue[:, :450].sum(1)
    # Both ends of the axis: the black line of the mean over IoUs is at 0.05, the orange one at 0.
    bottom = np.flatnonzero((drawn == (230, 120, 30)).all(-1)[:, :450].sum(1) > 300)
    height = bottom.mean() - np.flatnonzero(level > 300).mean()
    assert height / (360 / 1.01) == pytest.approx(0.5, abs=0.01)
    assert drawn.shape[1] < 1500


def test_classes_without_truths_have_no_curve():
    precision = np.full((10, 101, 3), 0.5)
    precision[:, :, 1] = -1
    both = precision_picture(precision[:, :, [0, 2]], ["a", "c"])
    assert np.array_equal(precision_picture(precision, ["a", "b", "c"]), both)
    assert precision_picture(np.full((10, 101, 2), -1.0), ["a", "b"]) is None


def box(page, colour):
    """Top, left, bottom and right of all pixels of a colour."""
    rows, columns = np.nonzero((page == colour).all(-1))
    return rows.min(), columns.min(), rows.max() + 1, columns.max() + 1


def test_cards_are_read_from_left_to_right_with_frames_around_their_pictures():
    colours = [(value, 0, 200) for value in (10, 20, 33, 44)]
    cards = [Card(np.tile(np.array(c, np.uint8), (40, 50, 1)), [Line("name")], WRONG) for c in colours]
    page = sheet(cards, "four", columns=3)
    places = [box(page, colour) for colour in colours]
    assert all((bottom - top, right - left) == (40, 50) for top, left, bottom, right in places)
    tops, lefts = [place[0] for place in places], [place[1] for place in places]
    assert tops[0] == tops[1] == tops[2] < tops[3]
    assert lefts[0] == lefts[3] < lefts[1] < lefts[2]
    top, left, _, _ = places[0]
    assert (page[top - 4 : top, left - 4] == WRONG).all()


@pytest.mark.parametrize("size", [(40, 50), (10, 300)])
def test_long_captions_and_titles_leave_the_margin_white(size):
    name = "a very long class name that no card has room for"
    lines = (Line(name, "99.9%", RIGHT), path_line(f"n01440764/{name}.JPEG"))
    page = sheet([Card(np.zeros((*size, 3), np.uint8), lines)] * 2, "a title longer than two cards " * 3)
    for edge in (page[:12], page[-12:], page[:, :12], page[:, -12:]):
        assert (edge == 255).all()
    assert sheet([], "No mistakes").shape[0] < 80


def test_small_images_grow_by_whole_factors_and_large_ones_shrink():
    small = torch.arange(27, dtype=torch.uint8).reshape(3, 3, 3)
    grown = thumbnail(small, 8)
    assert np.array_equal(grown, small.permute(1, 2, 0).numpy().repeat(2, 0).repeat(2, 1))
    assert thumbnail(torch.zeros(3, 100, 400, dtype=torch.uint8), 128).shape == (32, 128, 3)
    assert thumbnail(torch.zeros(3, 1, 4000, dtype=torch.uint8), 128).shape == (1, 128, 3)


@pytest.mark.parametrize(
    ("size", "drawn", "factors"),
    [((100, 50), (480, 240), (4.8, 4.8)), ((640, 480), (640, 480), (1, 1)), ((4000, 1), (1600, 1), (0.4, 1))],
)
def test_pictures_come_to_a_size_that_suits_labels(size, drawn, factors):
    pixels, grown = fitted_to(torch.full((3, size[1], size[0]), 0.5), 480, 1600)
    assert pixels.shape == (drawn[1], drawn[0], 3)
    assert grown == pytest.approx(factors)
    assert (pixels == 128).all()


def test_denormalise_is_the_inverse_of_normalising():
    original = torch.randint(0, 256, (3, 4, 5), dtype=torch.uint8)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    normal = (original / 255 - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    assert torch.equal(denormalise(normal, mean, std), original)


@pytest.mark.parametrize(
    ("share", "text"),
    [(1.0, "100%"), (0.0994, "9.9%"), (0.0996, "10%"), (0.0002, "<0.1%"), (0.0, "0%"), (np.nan, "NaN")],
)
def test_percent(share, text):
    assert percent(share) == text


@pytest.fixture
def figure_of(monkeypatch):
    """The figure that a picture was made of."""
    made = []
    for module in (confusion, curves):
        monkeypatch.setattr(module, "pixels_of", lambda figure, margin=None: made.append(figure) or PAGE)
    return made


def legends_of(figure):
    """Title and texts of each legend."""
    found = [axes.get_legend() for axes in figure.axes]
    return {x.get_title().get_text(): [text.get_text().strip() for text in x.texts] for x in found if x}


def test_the_figures_beside_curves_are_the_aps(figure_of):
    """AP50, AP75 and the AP over all IoUs of two classes; a third has no truths."""
    precision = np.random.default_rng(0).uniform(0, 1, (10, 101, 3))
    precision[:, :, 1] = -1
    precision_picture(precision, ["cat", "cow", "dog"], "val")
    total = {"0.50": 0.0, "0.75": 0.0, "0.50:0.95": 0.0}
    for k in (0, 2):
        for t in range(10):
            ap = sum(precision[t, :, k].tolist()) / 101
            total["0.50:0.95"] += ap / 20
            total["0.50"] += ap / 2 * (t == 0)
            total["0.75"] += ap / 2 * (t == 5)
    legends = legends_of(figure_of[0])
    assert legends["AP, IoU"] == [f"{value:.3f}  {iou}" for iou, value in total.items()]
    ap50 = sorted(((sum(precision[0, :, k]) / 101, n) for k, n in ((0, "cat"), (2, "dog"))), reverse=True)
    assert legends["AP50, class"] == [f"{value:.3f}  {name}" for value, name in ap50]


def test_of_many_classes_the_best_and_the_worst_are_named(figure_of):
    precision = np.tile(np.arange(30)[::-1] / 30, (10, 101, 1))  # class 0 is the best
    precision_picture(precision, [f"class {k}" for k in range(30)])
    texts = legends_of(figure_of[0])["AP50, class"]
    assert texts[:4] == [f"{(29 - k) / 30:.3f}  class {k}" for k in range(4)]
    assert texts[4] == f"{np.mean(np.arange(4, 26) / 30):.3f}  22 others"
    assert texts[5:] == [f"{(29 - k) / 30:.3f}  class {k}" for k in range(26, 30)]
    # The others are drawn nevertheless.
    drawn = np.concatenate([line.get_ydata() for line in figure_of[0].axes[1].lines])
    assert set(np.round(drawn[~np.isnan(drawn)], 6)) == {round(k / 30, 6) for k in range(30)}


@pytest.mark.parametrize(("classes", "written"), [(2, 2 * 2), (25, 25 * 25), (26, 0)])
def test_cells_have_percentages_up_to_25_classes(figure_of, classes, written):
    confusion_picture(np.full((classes, classes), 10), [str(k) for k in range(classes)])
    texts = [text.get_text() for text in figure_of[0].axes[0].texts]
    assert texts == [f"{100 / classes:.0f}"] * written


def test_percentages_are_those_of_the_row_in_its_cell(figure_of):
    confusion_picture(np.array([[997, 3, 0], [0, 0, 0], [1, 2, 1]]), ["a", "b", "c"])
    cells = {text.get_position()[::-1]: text.get_text() for text in figure_of[0].axes[0].texts}
    assert cells == {(0, 0): "100", (0, 1): "<1", (2, 0): "25", (2, 1): "50", (2, 2): "25"}
    assert figure_of[0].get_suptitle() == "3 classes: 1004 images, 99% right"


def luminance(colour):
    """Relative luminance of an sRGB colour, by its definition (IEC 61966-2-1)."""
    value = np.asarray(colour[:3])
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4) @ (
        0.2126,
        0.7152,
        0.0722,
    )


def test_percentages_can_be_read_on_any_blue(figure_of):
    """WCAG's contrast of at least 4.5 to 1."""
    for share in range(1, 101):
        confusion_picture(np.array([[share, 100 - share], [0, 1]]), ["a", "b"])
        axes = figure_of.pop().axes[0]
        text = next(text for text in axes.texts if text.get_position() == (0, 0))
        ground, ink = luminance(axes.images[0].to_rgba(share / 100)), luminance(to_rgb(text.get_color()))
        assert (max(ground, ink) + 0.05) / (min(ground, ink) + 0.05) >= 4.5


def test_the_list_beside_a_large_matrix_counts_its_pairs(figure_of):
    matrix = np.diag(np.full(60, 10))
    matrix[3, 5], matrix[9, 0] = 4, 2
    confusion_picture(matrix, [f"class {k}" for k in range(60)])
    (axes,) = (axes for axes in figure_of[0].axes if "Most confused" in axes.get_title("left"))
    texts = {text.get_text() for text in axes.texts}
    assert texts == {"4 of 14", "2 of 12", "class 3 → class 5", "class 9 → class 0"}
