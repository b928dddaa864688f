import os
import signal
import threading

import pytest
from process_group import finish, start_process, wait_until

from flax_transformer.checkpoints.reader import list_steps
from flax_transformer.training.interruption import InterruptionGuard


@pytest.fixture(params=[signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def received(request):
    """Count the signals that reach the handler outside the guard: (the signal, their list)."""
    signals = []
    previous = signal.signal(request.param, lambda number, frame: signals.append(number))
    yield request.param, signals
    signal.signal(request.param, previous)


def test_the_first_signal_is_a_request_and_the_second_acts(received):
    number, signals = received
    with InterruptionGuard() as guard:
        assert guard.requested is None
        os.kill(os.getpid(), number)
        assert (guard.requested, signals) == (number.name, [])
        os.kill(os.getpid(), number)
        assert signals == [number]


def test_handlers_come_back(received):
    number, signals = received
    with InterruptionGuard() as guard:
        pass
    os.kill(os.getpid(), number)
    assert (guard.requested, signals) == (None, [number])


def test_handlers_come_back_after_an_error(received):
    number, signals = received
    with pytest.raises(ZeroDivisionError), InterruptionGuard():
        raise ZeroDivisionError
    os.kill(os.getpid(), number)
    assert signals == [number]


def test_in_another_thread_it_does_nothing():
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def enter():
        with InterruptionGuard() as guard:
            seen.extend([guard.requested, signal.getsignal(signal.SIGTERM)])

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [None, before]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_second_signal_ends_a_training_at_once(tmp_path, number):
    process = start_process("tests/slow_trainer.py", tmp_path, num_devices=1)
    wait_until(lambda: (tmp_path / "evaluating").exists() or process.poll() is not None)
    assert (tmp_path / "evaluating").exists(), finish(process)
    process.send_signal(number)
    wait_until((tmp_path / "asked").exists)  # two signals at once may come as one
    wait_until(lambda: list_steps(tmp_path / "checkpoints") == [2])
    assert process.poll() is None
    process.send_signal(number)
    (ended,) = finish(process)
    # Python ends itself by the signal that a KeyboardInterrupt came from.
    assert ended.status == -number, ended
    assert list_steps(tmp_path / "checkpoints") == [2]
