"""Other projects' YOLOX keys: by hand, and on real files where these are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from attnlab.attention import attach
from attnlab.models.detectors.names import rename_yolox_keys
from attnlab.models.detectors.yolox import yolox

SHARED = Path(__file__).parents[4] / "shared"
WEIGHTS = SHARED / "weights"
COCO_VAL = SHARED / "data" / "coco"
VOC_IMAGES = SHARED / "data" / "voc2007-images"
VOC = [
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
]
EXAMPLE = torch.zeros(1, 3, 64, 64)

PAIRS = {
    "backbone.backbone.stem.conv.bn.running_var": "backbone.stem.conv.norm.running_var",
    "backbone.backbone.dark3.0.dconv.conv.weight": "backbone.stage3.0.depthwise.conv.weight",
    "backbone.backbone.dark5.1.conv2.conv.weight": "backbone.stage5.1.conv2.conv.weight",
    "backbone.backbone.dark4.1.m.2.conv2.bn.bias": "backbone.stage4.1.blocks.2.conv2.norm.bias",
    "backbone.lateral_conv0.bn.num_batches_tracked": "neck.lateral5.norm.num_batches_tracked",
    "backbone.C3_p4.m.0.conv1.conv.weight": "neck.top_down.blocks.0.conv1.conv.weight",
    "backbone.reduce_conv1.conv.weight": "neck.lateral4.conv.weight",
    "backbone.C3_p3.conv3.bn.weight": "neck.outputs.p3.conv3.norm.weight",
    "backbone.bu_conv2.conv.weight": "neck.down3.conv.weight",
    "backbone.C3_n3.conv1.conv.weight": "neck.outputs.n4.conv1.conv.weight",
    "backbone.bu_conv1.dconv.bn.weight": "neck.down4.depthwise.norm.weight",
    "backbone.C3_n4.conv1.conv.weight": "neck.outputs.n5.conv1.conv.weight",
    "head.stems.2.bn.weight": "head.stems.2.norm.weight",
    "head.cls_convs.1.0.conv.weight": "head.class_towers.1.0.conv.weight",
    "head.reg_convs.1.1.pconv.conv.weight": "head.box_towers.1.1.pointwise.conv.weight",
    "head.cls_preds.0.bias": "head.class_logits.0.bias",
    "head.reg_preds.0.weight": "head.box_offsets.0.weight",
    "head.obj_preds.0.weight": "head.objectness.0.weight",
    "somebody.else.bn.weight": "somebody.else.bn.weight",
}


@pytest.mark.parametrize(("theirs", "ours"), PAIRS.items())
def test_a_key(theirs: str, ours: str) -> None:
    assert list(rename_yolox_keys({theirs: torch.zeros(1)})) == [ours]


@pytest.mark.parametrize("variant", ["nano", "s"])
def test_our_keys_stay(variant: str) -> None:
    with torch.device("meta"):
        state = yolox(variant, 3).state_dict()
    assert list(rename_yolox_keys(state)) == list(state)


def test_our_keys_of_attention_stay() -> None:
    network = yolox("nano", 3, size=64)
    attach(network, "ela_t", at="yolox.neck", example=EXAMPLE)
    assert list(rename_yolox_keys(network.state_dict())) == list(network.state_dict())


def test_a_checkpoint_of_megvii() -> None:
    renamed = rename_yolox_keys({"start_epoch": 300, "model": {"head.obj_preds.0.bias": torch.ones(1)}})
    assert renamed == {"head.objectness.0.bias": torch.ones(1)}


def test_authors_attention_goes_to_every_site_that_shares_it() -> None:
    state = {
        f"backbone.{name}.gn.bias": torch.tensor(i) for i, name in enumerate(("feat06", "feat1", "feat2"))
    }
    unused = {"backbone.feat5.conv.weight": torch.zeros(1), "backbone.feat10.gn.weight": torch.zeros(1)}
    renamed = rename_yolox_keys({**state, **unused})
    assert {key: int(value) for key, value in renamed.items()} == {
        "neck.inputs.c3.attention.norm.bias": 0,
        "neck.inputs.c4.attention.norm.bias": 1,
        "neck.merge.p3.attention.norm.bias": 1,
        "neck.merge.n4.attention.norm.bias": 1,
        "neck.inputs.c5.attention.norm.bias": 2,
        "neck.merge.p4.attention.norm.bias": 2,
        "neck.merge.n5.attention.norm.bias": 2,
    }


def real(path: Path) -> Path:
    if not path.exists():
        pytest.skip(f"there is no ../{path.relative_to(SHARED.parent)}")
    return path


def read(name: str) -> dict[str, torch.Tensor]:
    path = real(WEIGHTS / name)
    state: dict[str, torch.Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def picture(path: Path) -> torch.Tensor:
    with Image.open(real(path)) as opened:
        return torch.from_numpy(np.array(opened.convert("RGB"))).permute(2, 0, 1) / 255


@pytest.mark.real_data
def test_the_port_scores_on_real_images() -> None:
    """AP 0.32 on 79 images; colour order, normalisation or decoding gone wrong would cost more than 0.03."""
    network = yolox("nano", 80)
    network.load_state_dict(rename_yolox_keys(read("yolox_nano_coco.pth")))
    network.eval()
    truth = COCO(str(real(COCO_VAL / "annotations" / "instances_val2017.json")))
    categories = sorted(truth.getCatIds())
    rows = []
    for image in truth.loadImgs(truth.getImgIds()):
        with torch.no_grad():
            (found,) = network([picture(COCO_VAL / "val2017" / image["file_name"])])
        x0, y0, x1, y1 = found["boxes"].unbind(1)
        boxes = torch.stack([x0, y0, x1 - x0, y1 - y0], dim=1).tolist()
        for box, score, label in zip(boxes, found["scores"].tolist(), found["labels"].tolist(), strict=True):
            rows.append(
                {"image_id": image["id"], "category_id": categories[label], "bbox": box, "score": score}
            )
    scores = COCOeval(truth, truth.loadRes(rows), "bbox")
    scores.evaluate()
    scores.accumulate()
    scores.summarize()
    assert scores.stats[0] > 0.29


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("image", "seen"),
    [("000206", {"person"}), ("003406", {"car", "person"}), ("003537", {"train"}), ("005147", {"sheep"})],
)
def test_the_authors_ela_sees_what_is_there(image: str, seen: set[str]) -> None:
    network = yolox("nano", 20, size=640)
    sites = attach(network, "ela_t", at="yolox.neck", example=EXAMPLE)
    assert len(sites) == 7
    network.load_state_dict(rename_yolox_keys(read("yolox_nano_ela_voc_authors.pth")))
    with torch.no_grad():
        (found,) = network.eval()([picture(VOC_IMAGES / f"{image}.jpg")])
    sure = found["labels"][found["scores"] > 0.6]
    assert {VOC[label] for label in sure.tolist()} == seen
