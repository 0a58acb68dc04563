"""Checkpoints that are either the old one or the new one, never half of either."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import pickle
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from attnlab.errors import AttnlabError


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place, flushes it to the disk, and then renames it into place.

    The temporary file lies in the same folder, since only within one file system is a rename atomic. When the
    disk is full or read-only, whatever lay there before is untouched.

    What was written last is not written again under a second name: the epoch's best is the last one, too, and
    becomes a hard link where the file system has them. A later write gives a name a file of its own again.
    """

    def __init__(self) -> None:
        super().__init__()
        self._written: tuple[Path, bytes] | None = None

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint.

        Args:
            checkpoint: What to save.
            path: Where; local paths only.
            storage_options: Not supported.

        Raises:
            AttnlabError: When it cannot be written. The file that was there before is intact.
        """
        if storage_options is not None:
            raise TypeError("AtomicCheckpointIO takes no storage_options")
        target = Path(path)
        partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
        existed = False
        try:
            existed = target.exists()
            target.parent.mkdir(parents=True, exist_ok=True)
            digest = _digest(checkpoint)
            if not self._link(digest, target, partial):
                with partial.open("wb") as file:
                    torch.save(checkpoint, file)
                    file.flush()
                    os.fsync(file.fileno())
            partial.replace(target)
            self._written = target, digest
        except (OSError, RuntimeError) as error:
            # torch reports a failed write of its archive as a RuntimeError.
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            kept = f"The previous {target} is intact" if existed else "Nothing was written"
            raise AttnlabError(
                f"Could not write the checkpoint {target}: {str(error).splitlines()[0]} {kept}. Free some "
                "space or choose another folder (--trainer.logger.init_args.save_dir), then resume with "
                "--ckpt_path last."
            ) from error

    def _link(self, digest: bytes, target: Path, partial: Path) -> bool:
        """Whether the file written last has this content, and has ``partial`` as a second name now."""
        if self._written is None or self._written[1] != digest or self._written[0] == target:
            return False
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
            partial.hardlink_to(self._written[0])
            return True
        return False


class LastCheckpoint(ModelCheckpoint):
    """Writes ``last.ckpt`` after every epoch, whatever the score.

    Lightning's own ``save_last`` does so only in epochs that also improved the best. It has no state, since
    its file is always the same: so the checkpoint of an epoch that is both best and last is one content.
    """

    def __init__(self) -> None:
        super().__init__(filename="last", save_on_train_epoch_end=True, enable_version_counter=False)

    def state_dict(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take the file that a resumed run has already for its own."""
        super().setup(trainer, pl_module, stage)
        path = Path(str(self.dirpath)) / "last.ckpt"
        if trainer.ckpt_path is not None and path.is_file():
            self.best_model_path = str(path)


def _digest(checkpoint: dict[str, Any]) -> bytes:
    """A number of the content; the same content gives the same."""
    stream = io.BytesIO()
    _Digester(stream, protocol=5).dump(checkpoint)
    return hashlib.blake2b(stream.getbuffer()).digest()


class _Digester(pickle.Pickler):
    """Pickles everything but the tensors, of which it takes shape, type and a digest of the values."""

    def persistent_id(self, obj: Any) -> Any:
        """What stands for a tensor; None for anything else."""
        if not isinstance(obj, torch.Tensor) or obj.layout != torch.strided:
            return None
        values = obj.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()
        return str(obj.dtype), tuple(obj.shape), hashlib.blake2b(values.data).digest()
