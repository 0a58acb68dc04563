"""What all tasks share: training and evaluation steps, scores, logging, the final table, checkpoints."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torchmetrics import MeanMetric

from attnlab import checkpoints
from attnlab.errors import AttnlabError
from attnlab.tasks.finite import (
    REMEDY,
    FiniteLoss,
    MeanLoss,
    OutputWatch,
    refuse_to_load,
    refuse_to_save,
    said_of_outputs,
)
from attnlab.tasks.identity import refuse_another_network
from attnlab.tasks.network import NetworkModule
from attnlab.views import View

# Nobody reads a final table of a thousand lines.
LISTED_CLASSES = 40
WORST_CLASSES = 10


class BaseTask(NetworkModule):
    """Trains and scores a network with attention.

    A subclass defines its network (`configure_network`, ``backbone``, `load_weights`), its losses (`losses`),
    its metrics (`make_scores`, `evaluate`, `figures`) and their summary (`headline`). Steps, logging, the
    check for non-finite losses and `NetworkModule`'s options are the same for all.

    Args:
        own: The subclass's own options, for ``hparams``.
        **options: Those of `NetworkModule`.

    Attributes:
        results: The last scores of ``"val"`` and ``"test"``.
        outputs: Notes images whose output is not finite; see `note_outputs`.
        has_eval_loss: Whether `evaluate` also updates a loss.
        class_metric: The name under which per-class figures are logged, ``STAGE_NAME/class``, and the stages
            in which they are.
        class_label: The name of the per-class figure in the final table.
    """

    # Short name of the task; stored in checkpoints.
    kind: str
    # The data module used by default on the command line: name or import path.
    default_data: ClassVar[str | None] = None
    # How its results are shown and its predictions written.
    view: View
    # The metric that selects the best checkpoint; higher is better.
    monitor: str
    has_eval_loss: ClassVar[bool] = True
    class_metric: ClassVar[tuple[str, tuple[str, ...]]] = ("score", ("test",))
    class_label: ClassVar[str] = "score"

    def __init__(self, own: Mapping[str, Any], **options: Any) -> None:
        super().__init__(own, **options)
        self.results: dict[str, Any] = {}
        self.finite = FiniteLoss()
        self.outputs = OutputWatch()
        self._without_output: dict[str, str] = {}
        self.configure_losses()
        self.configure_metrics()

    def setup(self, stage: str) -> None:
        """Reject data for another task, then set the network up.

        Raises:
            AttnlabError: The trainer's data module is for another task.
        """
        self.refuse_other_data(getattr(self.trainer, "datamodule", None))
        self.finite.processes = self.trainer.world_size
        super().setup(stage)

    def refuse_other_data(self, data: Any) -> None:
        """Reject a data module for another task.

        Args:
            data: The data module; one without a task is accepted.

        Raises:
            AttnlabError: It is for another task.
        """
        task = getattr(data, "task", None)
        if task not in (None, self.kind):
            raise AttnlabError(
                f"{type(data).__name__} is data for {task}, but the task is {self.kind}. Choose other data "
                f"(--data), or the {task} task (--model)."
            )

    def configure_losses(self) -> None:
        """Set up what `losses` needs."""

    def configure_metrics(self) -> None:
        """Set up the metrics and the mean loss of validation and test."""
        self.val_scores, self.test_scores = self.make_scores(), self.make_scores()
        self.val_loss, self.test_loss = MeanLoss(), MeanLoss()

    @abstractmethod
    def make_scores(self) -> Any:
        """The metrics of one stage: ``result()`` computes them, ``reset()`` clears them."""

    @abstractmethod
    def losses(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The terms of a training batch's loss by name, and ``"loss"``, the one to minimise."""

    @abstractmethod
    def evaluate(self, batch: dict[str, Any], scores: Any, loss: MeanMetric) -> Any:
        """Score one batch, and return the predictions for callbacks.

        Args:
            batch: Samples with ``counted`` False only keep the processes in step.
            scores: The metrics from `make_scores`, to be updated.
            loss: The stage's mean loss, to be updated, or None.
        """

    @abstractmethod
    def figures(self, result: Any) -> dict[str, float]:
        """The scores by the name they are logged under, ``STAGE/NAME``."""

    def class_figures(self, result: Any) -> dict[str, float]:
        """Each class's figure by class name, for the log; see ``class_metric``."""
        return {}

    def listed_figures(self, result: Any) -> dict[str, float]:
        """Each class's figure by class name, for the final table; see ``class_label``."""
        return self.class_figures(result)

    @abstractmethod
    def headline(self, stage: str, result: Any) -> list[tuple[str, str]]:
        """Label and text of the scores for the final table, without those per class."""

    def summary(self, stage: str, per_class: bool = True) -> list[tuple[str, str]]:
        """Label and text of a stage's last scores, for the final table.

        Args:
            stage: ``val`` or ``test``.
            per_class: Also list each class's figure; with more than 40 classes, the ten worst.
        """
        result = self.results.get(stage)
        if result is None:
            return []
        rows = self.headline(stage, result)
        if stage in self._without_output:
            rows.append(("images without output", self._without_output[stage]))
        absent = getattr(result, "absent", [])
        if absent:
            more = ", …" if len(absent) > LISTED_CLASSES else ""
            rows.append(("absent classes", ", ".join(absent[:LISTED_CLASSES]) + more))
        listed = list(self.listed_figures(result).items()) if per_class else []
        if len(listed) > LISTED_CLASSES:
            rows.append(("of the classes", f"the {WORST_CLASSES} worst of {len(listed)}:"))
            listed = sorted(listed, key=lambda item: item[1])[:WORST_CLASSES]
        return rows + [(f"{self.class_label} {name}", f"{value:.4f}") for name, value in listed]

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """The loss of one batch; every term is logged.

        Raises:
            AttnlabError: The loss is not finite; see `FiniteLoss`.
        """
        terms = self.losses(batch)
        self.finite.look_at(terms, batch, self.current_epoch, self.global_step)
        loss, size = terms["loss"], len(batch["image"])
        self.log("train/loss", loss, prog_bar=True, on_step=True, on_epoch=True, batch_size=size)
        if len(terms) > 2:
            others = {f"train/{name}": term.detach() for name, term in terms.items() if name != "loss"}
            self.log_dict(others, batch_size=size)
        return loss

    def on_train_epoch_end(self) -> None:
        """Check the last step's loss before anything is saved."""
        self.finite.look_back()

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> Any:
        """Score one batch; see `evaluate`."""
        return self.evaluate(batch, self.val_scores, self.val_loss)

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> Any:
        """Score one batch; see `evaluate`."""
        return self.evaluate(batch, self.test_scores, self.test_loss)

    def on_validation_epoch_end(self) -> None:
        """Log the scores of the validation set."""
        self._log_scores("val", self.val_scores, self.val_loss)

    def on_test_epoch_end(self) -> None:
        """Log the scores of the test set."""
        self._log_scores("test", self.test_scores, self.test_loss)

    def on_predict_epoch_end(self) -> None:
        """Warn of images whose output is not finite."""
        self._warn_of_outputs("images", "their predictions are left empty")

    def note_outputs(self, broken: Tensor | Sequence[bool], batch: Mapping[str, Any]) -> None:
        """Note whose output is not finite, for a warning at the end of the stage.

        Args:
            broken: bool (B,), True where it is not.
            batch: The batch; images that are not counted are left out.
        """
        counted = batch["counted"].tolist()
        names = batch.get("path") or batch.get("name") or [str(k) for k in range(len(counted))]
        of_all = zip(names, counted, strict=True)
        self.outputs.note(broken, [str(name) if counts else None for name, counts in of_all])

    def _warn_of_outputs(self, what: str, then: str) -> str | None:
        """Warn, on the first process; must be called on every one. Returns their number as text, if any."""
        broken, images = self.outputs.result(together=self.trainer.world_size > 1)
        if not broken:
            return None
        said = said_of_outputs(broken, images, what, then)
        # In half precision, BatchNorm statistics that are still on their way may overflow an evaluation.
        half = str(self.trainer.precision).startswith("16")
        if len(broken) == images and self._in_training() and not half:
            raise AttnlabError(f"{said} Training has diverged. {REMEDY}")
        rank_zero_warn(said)
        return f"{len(broken)} of {images} (NaN or infinite)"

    def _in_training(self) -> bool:
        return self.trainer.state.fn == TrainerFn.FITTING and not self.trainer.sanity_checking

    def _log_scores(self, stage: str, scores: Any, loss: MeanMetric) -> None:
        result = scores.result()
        broken = self._warn_of_outputs(f"'{stage}' images", "where it is, it is right for no class")
        if not self.trainer.sanity_checking:
            self.results[stage] = result
            self._without_output.pop(stage, None)
            if broken is not None:
                self._without_output[stage] = broken
        values = {f"{stage}/{name}": value for name, value in self.figures(result).items()}
        if self.has_eval_loss:
            values = {f"{stage}/loss": float(loss.compute()), **values}
        name, stages = self.class_metric
        if stage in stages:
            each = self.class_figures(result).items()
            values |= {f"{stage}_{name}/{class_name}": value for class_name, value in each}
        # All processes hold the same number already; a maximum, unlike a mean, does not round it.
        self.log_dict(values, sync_dist=True, reduce_fx="max")
        scores.reset()
        loss.reset()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Record the task's class in the checkpoint; never save after NaN in the loss or the weights.

        Raises:
            AttnlabError: They are not.
        """
        self.finite.look_back()
        refuse_to_save(self, checkpoint.get("state_dict", {}))
        cls = type(self)
        # Lightning looks for this in `BaseTask.load_from_checkpoint`.
        checkpoint["hyper_parameters"] |= {
            checkpoints.CLASS_PATH: f"{cls.__module__}.{cls.__qualname__}",
            checkpoints.INSTANTIATOR: "lightning.pytorch.cli.instantiate_module",
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Reject a checkpoint of another network, and say what differs; or one that holds NaNs."""
        refuse_another_network(self, checkpoint)
        refuse_to_load(self, checkpoint.get("state_dict", {}))


def names_of(num_classes: int | None, class_names: list[str] | None) -> list[str]:
    """Class names, made up if only their number is known.

    Raises:
        AttnlabError: Neither is given, or they contradict each other.
    """
    if class_names is None:
        if num_classes is None:
            raise AttnlabError(
                "The number of classes is not known: give num_classes or class_names, or data that "
                "defines them."
            )
        return [f"class {index}" for index in range(num_classes)]
    if num_classes is not None and num_classes != len(class_names):
        first = ", ".join(class_names[:30]) + (", …" if len(class_names) > 30 else "")
        raise AttnlabError(
            f"--model.num_classes {num_classes} contradicts the data, which has {len(class_names)} classes: "
            f"{first}. Leave it out; it comes from the data."
        )
    return list(class_names)
