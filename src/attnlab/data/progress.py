"""How far a download or a check has come: a bar on a terminal, lines of text elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

EVERY_SECONDS = 30.0


class Steps(Progress):
    """A bar on stderr; where that is no terminal, a line every half minute, and one at the end.

    What ends within the first half minute says nothing there.

    Args:
        in_bytes: Steps are bytes, not things.
        console: Where it is shown.
        clock: Seconds from any start.
    """

    def __init__(
        self,
        in_bytes: bool = False,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        console = console or Console(stderr=True)
        counted: tuple[ProgressColumn, ...] = (MofNCompleteColumn(),)
        columns = (DownloadColumn(), TransferSpeedColumn()) if in_bytes else counted
        super().__init__(
            TextColumn("{task.description}"),
            BarColumn(),
            *columns,
            TimeRemainingColumn(),
            console=console,
            transient=in_bytes,
            disable=not console.is_terminal,
        )
        self._unit, self._in = (1_000_000, " MB") if in_bytes else (1, "")
        self._clock = clock
        self._began: dict[TaskID, float] = {}
        self._said: dict[TaskID, float] = {}

    def add_task(self, description: str, *args: Any, **options: Any) -> TaskID:
        """Begin; as rich's own."""
        task = super().add_task(description, *args, **options)
        self._began[task] = self._said[task] = self._clock()
        return task

    def update(self, task_id: TaskID, **options: Any) -> None:
        """Say how far it is; as rich's own."""
        super().update(task_id, **options)
        self._say(task_id)

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        """Move on; as rich's own."""
        super().advance(task_id, advance)
        self._say(task_id)

    def _say(self, task_id: TaskID) -> None:
        if not self.disable:
            return
        now, task = self._clock(), self.tasks[self.task_ids.index(task_id)]
        ends = task.total is not None and task.completed >= task.total
        spoken = self._said[task_id] > self._began[task_id]
        if now - self._said[task_id] < EVERY_SECONDS and not (ends and spoken):
            return
        self._said[task_id] = now
        done, total = (f"{(value or 0) / self._unit:.0f}" for value in (task.completed, task.total))
        of = f" of {total}{self._in} ({task.percentage:.0f}%)" if task.total else self._in
        after = f", {timedelta(seconds=round(now - self._began[task_id]))}" if ends else ""
        self.console.print(f"{task.description}: {done}{of}{after}", highlight=False, soft_wrap=True)
