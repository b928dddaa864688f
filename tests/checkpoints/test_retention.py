import math
import threading
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from tiny_checkpoints import make_batches, make_large_state, make_state, open_checkpointer

from flax_transformer.checkpoints.manifest import MANIFEST_NAME
from flax_transformer.checkpoints.reader import list_steps
from flax_transformer.checkpoints.retention import rank_steps, steps_to_keep


@given(
    st.lists(st.none() | st.floats(), min_size=1, max_size=9), st.integers(1, 4), st.integers(0, 3)
)
def test_retention_relations(scores: list[float | None], keep_last: int, keep_best: int) -> None:
    by_step = dict(enumerate(scores))
    kept = steps_to_keep(by_step, keep_last=keep_last, keep_best=keep_best)
    last = set(list(by_step)[-keep_last:])
    assert last <= kept <= set(by_step)
    assert len(kept) <= keep_last + keep_best
    finite = [step for step, s in by_step.items() if s is not None and math.isfinite(s)]
    ranked = rank_steps(by_step)
    assert sorted(ranked) == finite
    assert all(by_step[step] is not None for step in kept - last)
    without = {step: by_step[step] for step in finite}
    assert rank_steps(without) == ranked  # steps without a score change nothing


def test_keeps_the_last_and_the_best(tmp_path: Path) -> None:
    scores = {1: 10.0, 2: 30.0, 3: 20.0, 4: math.nan, 5: None, 6: math.inf, 7: 5.0}
    with open_checkpointer(tmp_path, keep_last=2, keep_best=1) as checkpointer:
        for step, score in scores.items():
            metrics = {} if score is None else {"bleu": score}
            checkpointer.save(make_state(step), make_batches(), metrics=metrics)
            checkpointer.wait()
            finite = {
                s: v for s, v in scores.items() if s <= step and v is not None and math.isfinite(v)
            }
            best = max(finite, key=lambda s: finite[s])
            assert set(checkpointer.steps()) == {best, *range(max(1, step - 1), step + 1)}
    with open_checkpointer(tmp_path, keep_last=1, keep_best=1) as checkpointer:  # reads the scores
        checkpointer.save(make_state(8), make_batches(), metrics={"bleu": math.nan})
        checkpointer.wait()
        assert checkpointer.steps() == [2, 8]
        assert math.isnan(checkpointer.metrics(8)["bleu"])


def test_one_complete_checkpoint_is_there_while_the_next_is_written(tmp_path: Path) -> None:
    seen: list[tuple[int, ...]] = []
    without_manifest: list[int] = []
    saving = threading.Event()

    def watch() -> None:
        while saving.is_set():
            steps = list_steps(tmp_path)
            seen.append(tuple(steps))
            # The latest is not being deleted: a newer one would have to be complete.
            if not (tmp_path / str(steps[-1]) / MANIFEST_NAME).exists():
                without_manifest.extend(steps[-1:] if list_steps(tmp_path) == steps else [])

    with open_checkpointer(tmp_path, keep_last=1, keep_best=0) as checkpointer:
        checkpointer.save(make_large_state(1), make_batches(), metrics={})
        checkpointer.wait()
        saving.set()
        watcher = threading.Thread(target=watch)
        watcher.start()
        for step in range(2, 9):
            checkpointer.save(make_large_state(step), make_batches(), metrics={})
            assert checkpointer.latest_step() in (step - 1, step)
        checkpointer.wait()
        saving.clear()
        watcher.join()
        assert checkpointer.steps() == [8]
    assert all(seen)
    assert len(set(seen)) > 2
    assert not without_manifest
