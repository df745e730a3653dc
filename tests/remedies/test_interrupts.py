"""An interrupt is raised where it does no harm."""

import signal
import threading

import pytest

from keras_initaudit.remedies.interrupts import deferred


def interrupted(done: list[str], *, asks: bool, times: int = 1) -> None:
    with deferred() as ask:
        ask()
        for time in range(times):
            signal.raise_signal(signal.SIGINT)
            done.append(f"after {time}")
        if asks:
            ask()
            done.append("asked")
    done.append("behind")


@pytest.mark.parametrize(
    ("asks", "times", "then"), [(True, 1, ["after 0"]), (False, 1, ["after 0"]), (False, 2, ["after 0"])]
)
def test_it_waits_for_a_question_or_the_end_and_a_second_one_does_not(asks: bool, times: int, then: list[str]) -> None:
    done: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        interrupted(done, asks=asks, times=times)
    assert done == then
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_without_one_nothing_is_raised() -> None:
    done: list[str] = []
    interrupted(done, asks=True, times=0)
    assert done == ["asked", "behind"]


def test_an_error_of_the_block_comes_first() -> None:
    def failing() -> None:
        with deferred():
            signal.raise_signal(signal.SIGINT)
            raise ValueError("of the block")

    with pytest.raises(ValueError, match="of the block"):
        failing()


def test_a_thread_cannot_be_interrupted_and_changes_no_handler() -> None:
    seen = []

    def work() -> None:
        with deferred() as ask:
            ask()
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler]
