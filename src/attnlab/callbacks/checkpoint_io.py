"""Checkpoints that are either the old one or the new one, never half of either."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from attnlab.errors import AttnlabError


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place, flushes it to the disk, and then renames it into place.

    The temporary file lies in the same folder, since only within one file system is a rename atomic. When the
    disk is full or read-only, whatever lay there before is untouched.
    """

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
            with partial.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(target)
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
