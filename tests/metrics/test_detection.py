"""What the metric adds to the two protocols: collecting, order, devices, processes and bad input."""

from __future__ import annotations

import copy
import math
import pickle
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from attnlab.errors import AttnlabError
from attnlab.metrics import DetectionResult, DetectionScores

NAMES = ["ant", "bee", "cat"]
COCO = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]


def boxes(generator: torch.Generator, count: int) -> Tensor:
    corner = torch.randint(0, 40, (count, 2), generator=generator).float()
    return torch.cat([corner, corner + torch.randint(8, 60, (count, 2), generator=generator)], 1)


def data_set(images: int = 7) -> list[tuple[dict, dict]]:
    """Images of ants and bees, with ties among scores, crowds, difficult objects and an empty image."""
    generator = torch.Generator().manual_seed(0)
    pairs = []
    for number in range(images):
        real = 0 if number == 2 else int(torch.randint(1, 6, (), generator=generator))
        target = {
            "boxes": boxes(generator, real),
            "labels": torch.randint(0, 2, (real,), generator=generator),
            "image_id": torch.tensor(1000 - 7 * number),
            "iscrowd": torch.rand(real, generator=generator) < 0.1,
            "difficult": torch.rand(real, generator=generator) < 0.1,
        }
        target["area"] = (target["boxes"][:, 2:] - target["boxes"][:, :2]).prod(1) * 0.8
        found = torch.cat([target["boxes"] + 3, boxes(generator, 4)])
        detections = {
            "boxes": found,
            "scores": torch.randint(0, 6, (len(found),), generator=generator) / 5,
            "labels": torch.cat([target["labels"], torch.randint(0, 2, (4,), generator=generator)]),
        }
        pairs.append((detections, target))
    return pairs


def score(pairs: list[tuple[dict, dict]], size: int = 3, names: list[str] = NAMES) -> DetectionScores:
    scores = DetectionScores(names)
    for start in range(0, len(pairs), size):
        detections, targets = zip(*pairs[start : start + size], strict=True)
        scores.update(list(detections), list(targets))
    return scores


def digits(result: DetectionResult) -> str:
    """Every digit of a result, nan included."""
    plain = asdict(result)
    return repr({**plain, "precision": plain["precision"].tobytes().hex()})


def one(box: list[float], label: int = 0, image: int = 1, value: float = 0.9) -> tuple[dict, dict]:
    """An image with one object, found as it is."""
    target = {"boxes": torch.tensor([box], dtype=torch.float32), "labels": torch.tensor([label])}
    detections = {**target, "boxes": target["boxes"].clone(), "scores": torch.tensor([value])}
    return detections, {**target, "image_id": torch.tensor(image)}


def test_a_result_by_hand():
    """An ant is found; of two bees one is, and before it comes a box in the wrong place."""
    detections = {
        "boxes": torch.tensor([[0.0, 0, 50, 50], [60, 60, 90, 90], [0, 100, 20, 120], [70, 0, 80, 10]]),
        "scores": torch.tensor([0.9, 0.8, 0.7, 0.6]),
        "labels": torch.tensor([0, 1, 1, 2]),
    }
    target = {
        "boxes": torch.tensor([[0.0, 0, 50, 50], [0, 100, 20, 120], [200, 200, 220, 220]]),
        "labels": torch.tensor([0, 1, 1]),
        "image_id": torch.tensor(3),
    }
    result = score([(detections, target)]).result()
    assert list(result.coco) == COCO
    # COCO asks at 101 recalls: bee's 51 up to 0.5 have precision 1/2. VOC: area 1/2 x 1/2, or 6 of 11 points.
    bee = 51 * 0.5 / 101
    assert result.per_class["bee"].ap == pytest.approx(bee)
    assert result.per_class["bee"].voc_ap50 == 0.25
    assert result.per_class["ant"].ap50 == result.per_class["ant"].voc_ap50 == pytest.approx(1.0)
    assert result.coco["AP"] == pytest.approx((1 + bee) / 2)
    assert result.voc["AP50"] == 0.625
    assert result.voc["AP50_11point"] == pytest.approx((1 + 3 / 11) / 2)
    assert (result.coco["APs"], result.coco["APm"]) == (pytest.approx(bee), pytest.approx(1.0))
    assert math.isnan(result.coco["APl"])
    assert math.isnan(result.coco["ARl"])
    assert result.coco["AR100"] == pytest.approx(0.75)
    assert (result.images, result.truths, result.detections, result.absent) == (1, 3, 4, ["cat"])
    assert result.per_class["bee"].truths == 2
    assert result.precision.shape == (10, 101, 3)
    assert (result.precision[..., 2] == -1).all()


@pytest.mark.parametrize("size", [1, 2, 5])
def test_does_not_depend_on_batch_size_or_order(size):
    pairs = data_set()
    whole = digits(score(pairs).result())
    assert digits(score(pairs, size).result()) == whole
    assert digits(score(pairs[::-1], size).result()) == whole


def test_parts_add_up_exactly():
    pairs = data_set()
    parts = score(pairs[0::2])
    parts.merge_state(score(pairs[1::2]))
    assert digits(parts.result()) == digits(score(pairs).result())


def share(rank: int, folder: str, processes: int) -> None:
    """What one of several processes does; the last one has no image."""
    torch.set_num_threads(1)  # OpenMP's threads do not survive a fork.
    dist.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=processes)
    pairs = data_set()[rank :: processes - 1] if rank < processes - 1 else []
    Path(folder, f"{rank}.txt").write_text(digits(score(pairs).result()))
    twice = score(data_set()[:1])
    try:
        twice.result()
    except AttnlabError as error:
        Path(folder, f"{rank}.error").write_text(str(error))
    dist.destroy_process_group()


def test_any_number_of_processes_gives_the_same_digits(tmp_path):
    mp.start_processes(share, args=(str(tmp_path), 3), nprocs=3, start_method="fork")
    expected = digits(score(data_set()).result())
    assert [(tmp_path / f"{rank}.txt").read_text() for rank in range(3)] == [expected] * 3
    # An error is raised on every process, so none waits for ever.
    assert all("Image 1000 " in (tmp_path / f"{rank}.error").read_text() for rank in range(3))


def test_moves_between_processes():
    scores = score(data_set())
    expected = digits(scores.result())
    assert digits(copy.deepcopy(scores).result()) == expected
    assert digits(pickle.loads(pickle.dumps(scores)).result()) == expected


def test_arrays_and_tensors_are_scored_alike():
    arrays = [tuple({k: v.numpy() for k, v in part.items()} for part in pair) for pair in data_set()]
    assert digits(score(arrays).result()) == digits(score(data_set()).result())


def test_types_of_the_input():
    """float64 boxes, bfloat16 scores and int32 labels, under inference mode."""
    pairs = data_set()
    for detections, _ in pairs:
        detections["scores"] = detections["scores"].round()
    other = [
        (
            {"boxes": d["boxes"].double(), "scores": d["scores"].bfloat16(), "labels": d["labels"].int()},
            {**t, "boxes": t["boxes"].double()},
        )
        for d, t in pairs
    ]
    with torch.inference_mode():
        scores = score(other)
    assert digits(scores.result()) == digits(score(pairs).result())


def test_reset_forgets():
    scores = score(data_set())
    scores.reset()
    result = scores.result()
    assert (result.images, result.truths, result.detections) == (0, 0, 0)
    scores.update(*([part] for part in data_set()[0]))
    assert scores.result().images == 1


@pytest.mark.filterwarnings("error")
def test_nothing_seen_and_no_truths_is_no_number():
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)}
    pairs = [(detections, {**empty, "image_id": target["image_id"]}) for detections, target in data_set()]
    for result in (score([]).result(), score(pairs).result()):
        assert all(math.isnan(value) for value in (*result.coco.values(), *result.voc.values()))
        assert (result.absent, result.per_class, result.truths) == (NAMES, {}, 0)


@pytest.mark.filterwarnings("error")
def test_no_detections_is_zero():
    nothing = {
        "boxes": torch.zeros(0, 4),
        "scores": torch.zeros(0),
        "labels": torch.zeros(0, dtype=torch.long),
    }
    result = score([(nothing, target) for _, target in data_set()]).result()
    assert result.coco["AP"] == result.coco["AR100"] == result.voc["AP50"] == result.voc["AP50_11point"] == 0
    assert set(result.per_class) == {"ant", "bee"}


def test_crowds_and_difficult_objects_are_neither_found_nor_missed():
    detections, target = one([0, 0, 50, 50])
    for key in ("iscrowd", "difficult"):
        other = {**target, key: torch.tensor([True])}
        result = score([(detections, other), one([0, 0, 30, 30], image=2, value=0.1)]).result()
        assert (result.coco["AP"], result.voc["AP50"]) == (pytest.approx(1.0), 1.0)
        assert (result.truths, result.per_class["ant"].truths, result.detections) == (1, 1, 2)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("broken", ["scores", "boxes"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_detections_that_are_not_finite_are_dropped(broken, value):
    detections, target = one([0, 0, 50, 50])
    both = {key: torch.cat([part, part]) for key, part in detections.items()}
    both[broken][0] = value
    result = score([(both, target)]).result()
    assert (result.detections, result.coco["AP50"], result.voc["AP50"]) == (1, pytest.approx(1.0), 1.0)
    both["boxes"][1, 0], both["boxes"][1, 2] = -math.inf, math.inf
    assert score([(both, target)]).result().detections == 0
    detections[broken][:] = value
    result = score([(detections, target)]).result()
    assert (result.detections, result.coco["AP"]) == (0, 0)


def test_area_is_the_annotations_and_else_the_boxs():
    detections, target = one([0, 0, 100, 100])
    assert score([(detections, target)]).result().coco["APl"] == pytest.approx(1.0)
    small = {**target, "area": torch.tensor([500.0])}
    result = score([(detections, small)]).result()
    assert math.isnan(result.coco["APl"])
    assert result.coco["APs"] == pytest.approx(1.0)


def test_compute_names_every_number():
    scores = score(data_set())
    result, named = scores.result(), scores.compute()
    assert {name: float(named[name]) for name in ("AP", "AR10")} == {
        n: result.coco[n] for n in ("AP", "AR10")
    }
    assert float(named["voc/AP50_11point"]) == result.voc["AP50_11point"]
    assert len(named) == 14


def test_bad_input_is_named():
    detections, target = one([0, 0, 9, 9], image=77)
    with pytest.raises(AttnlabError, match=r"Image 77 was scored twice"):
        score([(detections, target)] * 2).result()
    with pytest.raises(AttnlabError, match=r"Truth of class 3 in image 77: labels must be in 0\.\.2"):
        score([(detections, {**target, "labels": torch.tensor([3])})])
    with pytest.raises(AttnlabError, match="Detection of class -1 in image 77"):
        score([one([0, 0, 9, 9]), ({**detections, "labels": torch.tensor([-1])}, target)])
    with pytest.raises(AttnlabError, match="Image 77 has no annotations"):
        score([(detections, {"image_id": torch.tensor(77)})])
    with pytest.raises(AttnlabError, match="Detections of 2 images cannot be scored on 1 targets"):
        DetectionScores(NAMES).update([detections] * 2, [target])
    with pytest.raises(AttnlabError, match="Image 77 has 1 boxes but 2 scores or labels"):
        score([({**detections, "scores": torch.ones(2), "labels": torch.zeros(2)}, target)])


def test_ids_beyond_32_bits_stay_apart():
    pairs = [one([0, 0, 9, 9], image=2**40), one([0, 0, 9, 9], image=2**41)]
    assert score(pairs).result().images == 2
    assert np.isfinite(score(pairs).result().coco["AP"])
