"""Overlapping work: one thread reads ahead, one thread writes behind. Order is kept, errors are passed on.

Threads are enough, because OpenCV, the encoders and the networks release Python's lock while they work.
"""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

T = TypeVar("T")

POLL_SECONDS = 0.1
"""Seconds after which a waiting thread checks whether the other side has ended."""

_END = object()


class ReadAhead(Generic[T]):
    """The items of an iterable, made by a thread while the caller works on earlier ones; a context manager.

    An error of the iterable is raised in the place of its item. Leaving the `with` block stops the thread after its
    current item at the latest, and closes a generator in the thread that ran it.

    Args:
        items: an iterable, run in the thread.
        depth: the most items that may wait.
    """

    def __init__(self, items: Iterable[T], depth: int):
        self._items = items
        self._queue: queue.Queue[Any] = queue.Queue(depth)
        self._stopped = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._produce, name="read ahead", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._thread.join()

    def __iter__(self) -> Iterator[T]:
        while True:
            # With a time limit, so that Ctrl-C is noticed on every system.
            with suppress(queue.Empty):
                item = self._queue.get(timeout=POLL_SECONDS)
                if item is not _END:
                    yield item
                elif self._error is not None:
                    raise self._error
                else:
                    return

    def _produce(self) -> None:
        iterator = iter(self._items)
        try:
            for item in iterator:
                if not self._offer(item):
                    break
        except BaseException as error:
            self._error = error
        finally:
            close = getattr(iterator, "close", None)
            if close is not None:
                close()
            self._offer(_END)

    def _offer(self, item: Any) -> bool:
        while not self._stopped.is_set():
            with suppress(queue.Full):
                self._queue.put(item, timeout=POLL_SECONDS)
                return True
        return False


class WriteBehind(Generic[T]):
    """Passes items to a function that runs in a thread, one after another; a context manager.

    An error of the function is raised by the next `put` or at the end of the `with` block; later items are dropped.
    The block ends when all items are done, even after an error in the block or Ctrl-C, so that every item is written.

    Args:
        use: called in the thread with every item.
        depth: the most items that may wait; `put` blocks until there is room.
    """

    def __init__(self, use: Callable[[T], object], depth: int):
        self._use = use
        self._queue: queue.Queue[Any] = queue.Queue(depth)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._consume, name="write behind", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._queue.put(_END)
        self._thread.join()
        if kind is None and self._error is not None:
            raise self._error

    def put(self, item: T) -> None:
        """Add an item.

        Raises:
            Exception: The exception that the function raised for an earlier item.
        """
        while True:
            if self._error is not None:
                raise self._error
            with suppress(queue.Full):
                self._queue.put(item, timeout=POLL_SECONDS)
                return

    def _consume(self) -> None:
        while (item := self._queue.get()) is not _END:
            if self._error is None:
                try:
                    self._use(item)
                except BaseException as error:
                    self._error = error
