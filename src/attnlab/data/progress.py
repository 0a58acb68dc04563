"""Progress of a download or a check: a bar on a terminal, lines of text elsewhere."""

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
    """A progress bar on stderr; if that is not a terminal, a line every half minute and at the end.

    Without a terminal, tasks shorter than half a minute print nothing.

    Args:
        in_bytes: Steps are bytes.
        console: The console to print to.
        clock: A clock in seconds.
        shown: Whether to show it at all.
    """

    def __init__(
        self,
        in_bytes: bool = False,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
        shown: bool = True,
    ) -> None:
        console = console or Console(stderr=True)
        counted: tuple[ProgressColumn, ...] = (MofNCompleteColumn(),)
        super().__init__(
            TextColumn("{task.description}"),
            BarColumn(),
            *((DownloadColumn(), TransferSpeedColumn()) if in_bytes else counted),
            TimeRemainingColumn(),
            console=console,
            transient=in_bytes,
            get_time=clock,
            disable=not (shown and console.is_terminal),
        )
        self._speaks = shown and not console.is_terminal
        self._unit, self._in = (1_000_000, " MB") if in_bytes else (1, "")
        # Seconds from a task's start to its last line.
        self._said: dict[TaskID, float] = {}

    def update(self, task_id: TaskID, **options: Any) -> None:
        """As rich's own."""
        super().update(task_id, **options)
        self._say(task_id)

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        """As rich's own."""
        super().advance(task_id, advance)
        self._say(task_id)

    def _say(self, task_id: TaskID) -> None:
        if not self._speaks:
            return
        task = self.tasks[self.task_ids.index(task_id)]
        now, said = task.elapsed or 0.0, self._said.get(task_id, 0.0)
        if now - said < EVERY_SECONDS and not (task.finished and said):
            return
        self._said[task_id] = now
        done, total = (f"{(value or 0) / self._unit:.0f}" for value in (task.completed, task.total))
        of = f" of {total}{self._in} ({task.percentage:.0f}%)" if task.total else self._in
        after = f", {timedelta(seconds=round(now))}" if task.finished else ""
        self.console.print(f"{task.description}: {done}{of}{after}", highlight=False, soft_wrap=True)
