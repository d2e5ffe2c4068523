"""The workshop's process: ``python -m dora_diffusion.studio.workshop_process``, started by ``workshop.Workshop``.

Reads orders from its input and answers on its output, both lines of JSON as told there. When its input closes, its
server is gone, and so is it, at once.
"""

import json
import os
import queue
import sys
import threading
import traceback
from typing import Any, TextIO

from dora_diffusion.errors import DoraError
from dora_diffusion.machine import hush_libraries
from dora_diffusion.studio.process import stand_back
from dora_diffusion.studio.tasks import TASKS
from dora_diffusion.studio.tasks.desk import Desk, StopOrderError, Tell


class _Orders:
    """What the server wants, read by a thread of its own: a stop must arrive while an order is worked on."""

    def __init__(self) -> None:
        self._orders: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._stops: dict[int, threading.Event] = {}
        threading.Thread(target=self._listen, daemon=True).start()

    def next(self) -> tuple[dict[str, Any], threading.Event]:
        """The next order, and what is set when it shall end."""
        order = self._orders.get()
        return order, self._stops[order["order"]]

    def forget(self, number: int) -> None:
        """An order is done."""
        self._stops.pop(number, None)

    def _listen(self) -> None:
        for line in sys.stdin.buffer:
            message = json.loads(line)
            if "stop" in message:
                stop = self._stops.get(message["stop"])
                if stop is not None:
                    stop.set()
            else:
                self._stops[message["order"]] = threading.Event()
                self._orders.put(message)
        os._exit(0)


def main() -> None:
    """Work until the server is gone."""
    answers = _take_output()
    hush_libraries()
    orders = _Orders()
    desk = Desk()
    while True:
        order, stop = orders.next()
        _work(desk, order, stop, _teller(answers, order["order"]))
        orders.forget(order["order"])


def _teller(answers: TextIO, order: int) -> Tell:
    def tell(event: str, **facts: Any) -> None:
        print(json.dumps({**facts, "order": order, "event": event}), file=answers, flush=True)

    return tell


def _work(desk: Desk, order: dict[str, Any], stop: threading.Event, tell: Tell) -> None:
    """One order, answered in any case."""
    try:
        with desk.order(stop, tell):
            result = TASKS.load(order["task"])(desk, **order["arguments"])
        tell("done", result=result)
    except StopOrderError:
        tell("stopped")
    except DoraError as error:
        tell("refused", message=str(error))
    except Exception as error:
        traceback.print_exc()
        first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
        tell("broken", message=f"{type(error).__name__}{': ' if first else ''}{first[:200]}")


def _take_output() -> TextIO:
    """The pipe to the server; whatever libraries print goes to the log instead."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


if __name__ == "__main__":
    stand_back()
    main()
