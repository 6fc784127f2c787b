"""SIGINT and SIGTERM as a wish to stop, heard at the end of a step."""

import signal
from types import FrameType, TracebackType


class Interrupts:
    """Inside `with`, the first signal is remembered in `number`; a second SIGINT interrupts at once.

    Not a `patient` one: torchrun hands on the Ctrl-C that the terminal has sent to its processes already. And when one
    of them dies it stops the others at once: after an error signals are ignored, so that this one can say what it lost.
    """

    number: int | None = None

    def __init__(self, patient: bool = False) -> None:
        self._patient = patient

    def __enter__(self) -> "Interrupts":
        self._before = {n: signal.signal(n, self._remember) for n in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_IGN if self._patient and kind is not None else handler)

    def _remember(self, number: int, _frame: FrameType | None) -> None:
        self.number = number
        if not self._patient:
            signal.signal(signal.SIGINT, signal.default_int_handler)
