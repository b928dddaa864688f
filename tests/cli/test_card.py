import io
import json
from pathlib import Path

import pytest
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.summary.writer.record_writer import RecordWriter
from tiny_public_models import make_public

from flax_transformer.cli.main import main
from flax_transformer.config import ExperimentConfig, save_config
from flax_transformer.data.pipeline import PipelineConfig
from flax_transformer.experiment.run_time import measure_run_time
from flax_transformer.interop.pretrained import save_model, save_pretrained


def write_events(workdir: Path, name: str, times: list[float], *, cut: int = 0) -> None:
    framed = io.BytesIO()
    writer = RecordWriter(framed)
    for time in times:
        writer.write(Event(wall_time=time).SerializeToString())
    (workdir / "tensorboard").mkdir(exist_ok=True)
    content = framed.getvalue()
    path = workdir / "tensorboard" / f"events.out.tfevents.{name}"
    path.write_bytes(content[: len(content) - cut])


@pytest.fixture
def run(tmp_path: Path) -> Path:
    workdir = tmp_path / "run"
    (workdir / "checkpoints").mkdir(parents=True)
    pretrained = make_public("MarianMTModel")
    pipeline = PipelineConfig(max_length=pretrained.config.max_positions)
    config = ExperimentConfig(model=pretrained.config, pipeline=pipeline)
    save_config(config, workdir / "config.json")
    save_model(workdir / "model", pretrained)
    return workdir


def test_a_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = {"seed": 0, "test_bleu": 31.25, "signatures": {"bleu": "tok:13a"}}
    (run / "results.json").write_text(json.dumps(results))
    write_events(run, "1", [100.0, 1900.0])
    assert main(["card", str(run), "--power", "400"]) == 0
    card = capsys.readouterr().out
    assert card.startswith("# run\n")
    assert "encoder and a decoder" in card
    assert "- direction: en → pt" in card
    assert "- test_bleu: 31.25 (tok:13a)" in card
    assert "0.2 kWh: 0.5 hours that were measured (all but start and test), times 400 W" in card
    assert "| positions | 13 |" in card


def test_what_is_not_known_is_said_so(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["card", str(run)]) == 0
    card = capsys.readouterr().out
    assert "Not measured: there is no record of the time" in card
    assert "None known: there is no results.json" in card
    write_events(run, "1", [100.0, 1900.0])
    assert main(["card", str(run)]) == 0
    assert "Not measured. The training took 0.5 hours; `--power`" in capsys.readouterr().out
    assert main(["card", str(run), "--power", "-3"]) == 2


def test_a_public_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_pretrained(make_public("DistilBertForSequenceClassification"), tmp_path / "model")
    assert main(["card", str(tmp_path / "model"), "--output", str(tmp_path / "card.md")]) == 0
    card = (tmp_path / "card.md").read_text()
    assert "DistilBertForSequenceClassification" in card
    assert "| classes | class 0, class 1, class 2 |" in card
    assert "Not stated: the model's files do not say what it was trained on." in card


def test_attempts_are_summed_up_to_their_last_events(tmp_path: Path) -> None:
    assert measure_run_time(tmp_path) is None
    write_events(tmp_path, "1", [10.0, 15.0, 30.0], cut=5)
    write_events(tmp_path, "2", [100.0, 101.0])
    write_events(tmp_path, "3", [])
    assert measure_run_time(tmp_path) == 6.0


def test_a_record_that_ends_in_zeros_ends_there(tmp_path: Path) -> None:
    write_events(tmp_path, "1", [1e9, 1e9 + 5.0])
    (path,) = (tmp_path / "tensorboard").iterdir()
    with path.open("ab") as file:
        file.write(bytes(64))
    assert measure_run_time(tmp_path) == 5.0
