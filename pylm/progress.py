"""One line of progress on stderr: live on a terminal, plain lines every few seconds when piped."""

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.text import Text

PLAIN_INTERVAL_S = 10.0


class ProgressLine:
    """A status line that `update` replaces; `log` prints a lasting line above it.

    Results go to stdout and everything here to stderr, so that output can be piped while progress is watched.
    """

    def __init__(self, shown: bool = True) -> None:
        """One that is not `shown` says nothing: of several processes the first speaks."""
        self._console = Console(stderr=True, highlight=False, soft_wrap=True, quiet=not shown)
        live = shown and sys.stderr.isatty()
        self._live = Live(console=self._console, auto_refresh=False, transient=True) if live else None
        self._last_shown = float("-inf")

    def __enter__(self) -> "ProgressLine":
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def update(self, text: str) -> None:
        """Show `text` as the current state; cheap to call often."""
        now = time.monotonic()
        if now - self._last_shown < (0.1 if self._live else PLAIN_INTERVAL_S):
            return
        self._last_shown = now
        if self._live:
            self._live.update(Text(text, no_wrap=True, overflow="ellipsis"), refresh=True)
        else:
            self.log(text)

    def log(self, text: str) -> None:
        """Print a line that stays; control characters of a model's text are made harmless first."""
        safe = "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)
        self._console.print(Text(safe))


def duration(seconds: float) -> str:
    """A time for people: 45s, 3m12s, 2h05m."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
