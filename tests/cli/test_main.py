import subprocess
import sys

import pytest

from flax_transformer.cli.exit_status import run_guarded
from flax_transformer.cli.main import COMMANDS
from flax_transformer.errors import DivergenceError, InputError


def test_help_lists_the_commands_and_loads_no_command():
    code = (
        "import sys; from flax_transformer.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "heavy = {'sentencepiece', 'sacrebleu', 'orbax', 'grain', 'tqdm'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(f"  {name} " in done.stdout for name in COMMANDS)


def test_version(capsys, run_main):
    with pytest.raises(SystemExit, match="0"):
        run_main("--version")
    assert capsys.readouterr().out.startswith("flax-transformer ")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "flax-transformer: error: a command must be given"),
        (["tranlsate"], "unknown command 'tranlsate'; did you mean translate?"),
        (["--versoin"], "unknown option '--versoin'; did you mean --version?"),
        (["translate"], "flax-transformer translate: error: the following arguments are required"),
        (["translate", "m", "--beam-sise", "3"], "'--beam-sise'; did you mean --beam-size?"),
        (["translate", "m", "--beam", "3"], "unknown option '--beam'"),
        (["translate", "m", "n"], "unknown argument 'n'"),
        (["translate", "m", "--beam-size", "0"], "--beam-size: must be an integer of at least 1"),
        (["translate", "m", "--beam-size", "x"], "--beam-size: must be an integer of at least 1"),
        (["translate", "m", "--threads", "0"], "--threads: must be an integer of at least 1"),
        (["translate", "m", "--max-length", "0"], "--max-length: must be an integer of at least 1"),
        (["translate", "m", "--length-penalty", "nan"], "--length-penalty: must be a finite"),
        (["translate", "m", "--n-best", "6"], "num_best must lie between 1 and beam_size = 5"),
        (["translate", "m", "--n-best", "2", "--scores"], "--scores must not be given"),
        (["translate", "m", "--min-length", "9", "--max-length", "8"], "min_length must lie"),
        (["evaluate", "m", "--source", "s"], "arguments are required: --reference"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(run_main, argv, message):
    status, output, errors = run_main(*argv)
    assert (status, output) == (2, "")
    assert message in errors
    assert errors.count("\n") == 1


@pytest.mark.parametrize(
    ("fault", "status", "message"),
    [
        (InputError("x must be\n1, got 2."), 1, "p: error: x must be 1, got 2.\n"),
        (DivergenceError("the loss is nan."), 1, "p: error: the loss is nan.\n"),
        (PermissionError(13, "Permission denied", "f"), 1, "p: error: f: Permission denied\n"),
        (OSError(28, "No space left on device"), 1, "p: error: No space left on device\n"),
        (BrokenPipeError(32, "Broken pipe"), 0, ""),
        (
            MemoryError(),
            1,
            "p: error: out of memory. Make batches, the beam or the model smaller.\n",
        ),
        (KeyboardInterrupt(), 130, "p: error: interrupted\n"),
    ],
)
def test_faults_are_one_line_and_a_status(capsys, fault, status, message):
    def command():
        raise fault

    assert run_guarded("p", command, is_filter=True) == status
    assert capsys.readouterr().err == message


def test_faults_of_the_program_keep_their_traceback():
    def command():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_guarded("p", command, is_filter=True)


def test_a_command_that_does_more_than_print_needs_its_output(capsys):
    def command():
        raise BrokenPipeError(32, "Broken pipe")

    assert run_guarded("p", command, is_filter=False) == 1
    assert capsys.readouterr().err == "p: error: standard output was closed before the end\n"
