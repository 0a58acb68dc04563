from __future__ import annotations

import itertools

import numpy as np
import pytest

from attnlab.data.shapes.scenes import BORDER, SceneOptions, draw_scene

OPTIONS = SceneOptions(size=96)
SCENES = [draw_scene(OPTIONS, 0, 0, k) for k in range(60)]


def test_a_scene_depends_on_seed_and_stream_alone():
    again = draw_scene(OPTIONS, 0, 0, 7)
    assert np.array_equal(again.image, SCENES[7].image)
    assert np.array_equal(again.mask, SCENES[7].mask)
    assert again.objects == SCENES[7].objects
    others = [draw_scene(OPTIONS, 1, 0, 7), draw_scene(OPTIONS, 0, 1, 7), SCENES[8]]
    assert not any(np.array_equal(other.image, again.image) for other in others)


def test_mask_instances_and_objects_agree():
    for scene in SCENES:
        assert scene.image.shape == (96, 96, 3)
        assert scene.image.dtype == scene.mask.dtype == np.uint8
        labels = np.array([0, *(item.label for item in scene.objects)])
        inner = scene.mask != BORDER
        assert np.array_equal(scene.mask[inner], labels[scene.instances][inner])
        for number, item in enumerate(scene.objects, start=1):
            rows, columns = np.nonzero(scene.instances == number)
            assert item.box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            assert item.area == len(rows)
            assert item.name == OPTIONS.forms[item.label - 1]


def test_borders_lie_along_outlines_only():
    for scene in SCENES:
        padded = np.pad(scene.instances, 2, mode="edge")
        neighbours = np.stack(
            [padded[y : y + 96, x : x + 96] for y, x in itertools.product(range(5), repeat=2)]
        )
        at_edge = (neighbours != scene.instances).any(0)
        # All but a few: at tips thinner than a pixel, and where an outline passes just outside the picture.
        assert at_edge[scene.mask == BORDER].mean() > 0.98


def test_all_kinds_of_objects_come_up():
    objects = [item for scene in SCENES for item in scene.objects]
    assert {item.label for item in objects} == set(range(1, 6))
    for kind in ("truncated", "occluded", "difficult"):
        share = np.mean([getattr(item, kind) for item in objects])
        assert 0 < share < 0.8, kind
    assert all(1 <= len(scene.objects) <= 4 for scene in SCENES)
    ground = np.mean([(scene.mask == 0).mean() for scene in SCENES])
    assert 0.5 < ground < 0.85


@pytest.mark.slow
def test_colour_does_not_tell_the_class():
    """The best guess from a pixel's colour, learnt on half of the scenes, is hardly better than none."""

    def pixels(scenes):
        colours = np.concatenate([scene.image.reshape(-1, 3) for scene in scenes]) // 32
        labels = np.concatenate([scene.mask.ravel() for scene in scenes])
        bins = colours.astype(int) @ [64, 8, 1]
        return bins[labels != BORDER], labels[labels != BORDER]

    options = SceneOptions(size=48)
    scenes = [draw_scene(options, 3, 0, k) for k in range(300)]
    bins, labels = pixels(scenes[:200])
    votes = np.zeros((512, 6))
    np.add.at(votes, (bins, labels), 1)
    # Votes weighted by class, so that the guess is not the background everywhere.
    for weights in (np.ones(6), 1 / np.bincount(labels, minlength=6)):
        bins_new, truth = pixels(scenes[200:])
        guess = (votes * weights).argmax(1)[bins_new]
        hits = np.bincount(truth[truth == guess], minlength=6)
        iou = hits / (np.bincount(truth, minlength=6) + np.bincount(guess, minlength=6) - hits)
        assert iou.mean() < 0.2


def test_options_show():
    alone = draw_scene(SceneOptions(size=64, max_objects=1, forms=("square",), clutter=0), 0, 0)
    assert [item.name for item in alone.objects] == ["square"]
    assert alone.image.shape == (64, 64, 3)
    large = draw_scene(SceneOptions(max_objects=1, object_size=(0.9, 0.9)), 0, 1)
    small = draw_scene(SceneOptions(max_objects=1, object_size=(0.1, 0.1)), 0, 1)
    assert large.objects[0].area > 10 * small.objects[0].area
