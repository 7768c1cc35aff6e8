import threading
import time

import pytest

from utils.pipeline import ReadAhead, WriteBehind


def wait_until(condition) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_items_come_in_order_from_another_thread_which_ends():
    threads = set()

    def items():
        for number in range(100):
            threads.add(threading.current_thread())
            yield number

    with ReadAhead(items(), 3) as ahead:
        assert list(ahead) == list(range(100))
    assert threads and threading.current_thread() not in threads
    assert not any(thread.is_alive() for thread in threads)


def test_no_more_items_are_made_than_may_wait():
    made = []

    def items():
        for number in range(100):
            made.append(number)
            yield number

    with ReadAhead(items(), 3) as ahead:
        iterator = iter(ahead)
        assert next(iterator) == 0
        # Three wait, and one more is in the thread's hands.
        wait_until(lambda: len(made) == 5)
        time.sleep(0.3)
        assert len(made) == 5


def test_an_error_of_the_source_comes_after_the_items_before_it():
    def items():
        yield 1
        raise OSError("damaged")

    seen = []
    with ReadAhead(items(), 3) as ahead, pytest.raises(OSError, match="damaged"):
        for item in ahead:
            seen.append(item)
    assert seen == [1]


def test_leaving_early_closes_the_source_in_its_own_thread():
    closed = []

    def items():
        try:
            yield from range(100)
        finally:
            closed.append(threading.current_thread())

    with pytest.raises(KeyboardInterrupt), ReadAhead(items(), 2) as ahead:
        next(iter(ahead))
        raise KeyboardInterrupt
    assert len(closed) == 1 and closed[0] is not threading.current_thread()


def test_items_are_used_in_order_and_all_of_them_before_the_block_ends():
    used = []
    with WriteBehind(lambda item: (time.sleep(0.002), used.append(item)), 2) as behind:
        for number in range(20):
            behind.put(number)
    assert used == list(range(20))


def test_what_was_put_is_used_although_the_block_fails():
    used = []
    with pytest.raises(KeyboardInterrupt), WriteBehind(lambda item: (time.sleep(0.01), used.append(item)), 5) as behind:
        for number in range(4):
            behind.put(number)
        raise KeyboardInterrupt
    assert used == [0, 1, 2, 3]


def fail_at(number: int, used: list[int]):
    def use(item: int) -> None:
        if item == number:
            raise OSError("full")
        used.append(item)

    return use


def test_an_error_of_the_function_is_raised_at_a_later_put_and_nothing_is_used_after_it():
    used = []
    with pytest.raises(OSError, match="full"), WriteBehind(fail_at(1, used), 2) as behind:
        for number in range(100):
            behind.put(number)
            time.sleep(0.001)
    assert used == [0]


def test_an_error_at_the_last_item_is_raised_at_the_end_of_the_block():
    with pytest.raises(OSError, match="full"), WriteBehind(fail_at(0, []), 2) as behind:
        behind.put(0)


def test_an_error_of_the_block_itself_comes_before_that_of_the_function():
    with pytest.raises(KeyError), WriteBehind(fail_at(0, []), 2) as behind:
        behind.put(0)
        raise KeyError
