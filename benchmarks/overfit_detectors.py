"""Can each detector learn eight images by heart? The proof that losses, assignment and decoding agree.

Run: ``python benchmarks/overfit_detectors.py --root /path/to/coco --jobs 2``

The images are the first eight of the set whose smallest box covers ``--least-side`` squared pixels and that
have at most ``--most-objects``. Each detector starts from random weights, trains on ``--batch`` images a step
and is scored on the same eight (AP50, COCO's) after every ``--every`` steps; a run ends when ``--enough`` is
reached, or at ``--steps``. A loss that pulls at the wrong box, an assignment that gives a truth to nobody, or
a decoding that does not invert the encoding does not get there. Runs that are done are not repeated.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

SMALL = {"backbone": "resnet18", "min_size": 224, "max_size": 336}
DETECTORS: dict[str, dict[str, Any]] = {
    "faster_rcnn": {**SMALL, "smallest_anchor": 16, "proposals_trained": 64},
    "retinanet": {**SMALL, "smallest_anchor": 16},
    "fcos": {**SMALL, "score_threshold": 0.05},
    "ssdlite": {"size": 320},
    "yolox_nano": {"size": 320},
    # One map of stride 32: at 224 pixels neighbours would share their anchors.
    "yolof": {"backbone": "resnet18", "min_size": 416, "max_size": 640},
}


def subset(
    root: Path, annotations: str, least_side: float, most_objects: int, count: int = 8
) -> dict[str, Any]:
    """The json of the first images that suit, without crowds."""
    content = json.loads((root / annotations).read_text())
    objects: dict[int, list[dict[str, Any]]] = {}
    for annotation in content["annotations"]:
        objects.setdefault(annotation["image_id"], []).append(annotation)
    images = [
        image
        for image in content["images"]
        if 0 < len(objects.get(image["id"], [])) <= most_objects
        and not any(annotation["iscrowd"] for annotation in objects[image["id"]])
        and min(a["bbox"][2] * a["bbox"][3] for a in objects[image["id"]]) >= least_side**2
    ][:count]
    if len(images) < count:
        sys.exit(f"Only {len(images)} images of {root / annotations} suit; lower --least-side.")
    chosen = [annotation for image in images for annotation in objects[image["id"]]]
    used = Counter(annotation["category_id"] for annotation in chosen)
    categories = [category for category in content["categories"] if category["id"] in used]
    return {**content, "images": images, "annotations": chosen, "categories": categories}


def train(network: str, attention: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """One run, in this process."""
    import torch
    from lightning import Callback, Trainer, seed_everything

    from attnlab.data import COCODetectionDataModule
    from attnlab.tasks import AttentionConfig, DetectionTask, OptimizerConfig, ScheduleConfig

    class Until(Callback):
        """Stops at the score that is enough."""

        best, steps = 0.0, 0

        def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
            score = float(trainer.callback_metrics["val/AP50"])
            losses = {k: round(float(v), 3) for k, v in trainer.callback_metrics.items() if "train/" in k}
            print(f"{network} {attention} step {trainer.global_step}: AP50 {score:.3f} {losses}", flush=True)
            if score > self.best:
                self.best, self.steps = score, trainer.global_step
            trainer.should_stop = score >= arguments.enough

    torch.set_num_threads(1)
    seed_everything(0, verbose=False)
    json_file = str(arguments.logs / "eight.json")
    data = COCODetectionDataModule(
        root=str(arguments.root),
        train_annotations=json_file,
        train_images=arguments.images,
        val_annotations=json_file,
        val_images=arguments.images,
        batch_size=arguments.batch,
        num_workers=0,
        flip=0.0,
    )
    task = DetectionTask(
        network=network,
        network_options=DETECTORS[network],
        attention=AttentionConfig(attention),
        optimizer=OptimizerConfig("AdamW", lr=arguments.lr, weight_decay=0.0),
        schedule=ScheduleConfig("cosine", warmup_steps=10, final_factor=0.1),
        class_names=data.class_names,
    )
    until = Until()
    trainer = Trainer(
        accelerator=arguments.accelerator,
        precision=arguments.precision,
        max_steps=arguments.steps,
        max_epochs=-1,
        check_val_every_n_epoch=max(1, arguments.every * arguments.batch // 8),
        num_sanity_val_steps=0,
        gradient_clip_val=10.0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[until],
    )
    start = time.perf_counter()
    trainer.fit(task, data)
    return {"AP50": until.best, "steps": until.steps, "seconds": time.perf_counter() - start}


def in_a_process(network: str, attention: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """One run in a process of its own, or what it gave when it was done before."""
    done = arguments.logs / f"{network}_{attention}.json"
    if not done.is_file():
        words = [sys.executable, __file__, *sys.argv[1:], "--one", network, attention]
        with (arguments.logs / f"{network}_{attention}.txt").open("w") as output:
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            subprocess.run(words, check=True, stdout=output, stderr=subprocess.STDOUT, env=environment)
    result: dict[str, Any] = json.loads(done.read_text())
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", type=Path, required=True, help="the folder of COCO")
    parser.add_argument("--annotations", default="annotations/instances_train2017.json", help="in root")
    parser.add_argument("--images", default="train2017", help="the folder of the images, in root")
    parser.add_argument("--detectors", nargs="+", default=list(DETECTORS), choices=DETECTORS)
    parser.add_argument("--attentions", nargs="+", default=["none", "ela_b"])
    parser.add_argument("--steps", type=int, default=600, help="most optimizer steps")
    parser.add_argument("--every", type=int, default=20, help="steps between two scorings")
    parser.add_argument("--batch", type=int, default=2, choices=(1, 2, 4, 8), help="images a step")
    parser.add_argument("--precision", default="32-true", help="of the Trainer, e.g. bf16-mixed")
    parser.add_argument("--enough", type=float, default=0.95, help="AP50 that ends a run")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--least-side", type=float, default=48.0, help="root of the smallest box, in pixels")
    parser.add_argument("--most-objects", type=int, default=8)
    parser.add_argument("--accelerator", default="cpu")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--logs", type=Path, default=Path("lightning_logs/overfit"))
    parser.add_argument("--one", nargs=2, metavar=("DETECTOR", "ATTENTION"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.root, arguments.logs = arguments.root.resolve(), arguments.logs.resolve()
    if arguments.one:
        result = train(*arguments.one, arguments)
        (arguments.logs / "{}_{}.json".format(*arguments.one)).write_text(json.dumps(result))
        return
    arguments.logs.mkdir(parents=True, exist_ok=True)
    eight = subset(arguments.root, arguments.annotations, arguments.least_side, arguments.most_objects)
    (arguments.logs / "eight.json").write_text(json.dumps(eight))
    jobs = [(network, attention) for network in arguments.detectors for attention in arguments.attentions]
    with ThreadPoolExecutor(arguments.jobs) as pool:
        results = list(pool.map(lambda job: in_a_process(*job, arguments), jobs))
    print(f"{len(eight['annotations'])} objects of {len(eight['categories'])} classes on eight images\n")
    print("| detector | attention | AP50 | steps | minutes |\n| --- | --- | ---: | ---: | ---: |")
    for (network, attention), result in zip(jobs, results, strict=True):
        minutes = result["seconds"] / 60
        print(f"| {network} | {attention} | {result['AP50']:.3f} | {result['steps']} | {minutes:.1f} |")


if __name__ == "__main__":
    main()
