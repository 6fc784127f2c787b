"""`pylm tokenize` as a process: killed, stopped, refused by the disk, twice at once; the folder is whole or absent."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pylm.folders import claimed

COMMAND = [
    sys.executable,
    "-m",
    "pylm",
    "tokenize",
    "a.txt",
    "--out",
    "out",
    "--vocab-size",
    "2000",
    "--jobs",
    "2",
]


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, real_text: bytes) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_bytes(real_text * 4)


def _content(folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def _run(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, check=False, input=stdin.decode()
    )


def _hidden() -> list[str]:
    return [path.name for path in Path().iterdir() if path.name.startswith(".")]


def test_killed_at_any_moment_and_run_again_it_ends_with_the_same_bytes() -> None:
    started_s = time.monotonic()
    result = _run("--out", "undisturbed")
    assert result.returncode == 0, result.stderr
    whole_s = time.monotonic() - started_s
    n_killed = 0
    for share in (0.3, 0.5, 0.65, 0.8, 0.95):
        with subprocess.Popen(COMMAND, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            time.sleep(share * whole_s)
            process.kill()
        n_killed += process.returncode == -signal.SIGKILL
        assert not Path("out").exists() or _content("out") == _content("undisturbed")
    assert n_killed >= 2
    result = _run()
    assert result.returncode == 0, result.stderr
    assert _content("out") == _content("undisturbed")
    assert _hidden() == []


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_it_and_leaves_nothing(number: int, exit_code: int) -> None:
    os.mkfifo("gate")  # stdin is read through it, so that the job is certainly in its middle
    command = 'exec "$0" -m pylm tokenize - --out out --tokenizer byte < gate'
    with (
        subprocess.Popen(
            ["bash", "-c", command, sys.executable],
            stderr=subprocess.PIPE,
            text=True,
            # A test run in the background of a script has SIGINT ignored, and children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        ) as process,
        Path("gate").open("wb") as gate,
    ):
        gate.write(b"text")
        gate.flush()
        while not Path(".out.partial/stdin").exists():
            time.sleep(0.01)
        process.send_signal(number)
        error = process.communicate()[1]
    assert process.returncode == exit_code, error
    assert error.strip().startswith("stopped: by ")
    assert not Path("out").exists()
    assert _hidden() == []


def test_a_full_disk_is_one_line_and_leaves_what_was_there() -> None:
    assert _run("--val-fraction", "0").returncode == 0
    before = _content("out")
    limit = 'ulimit -f 200; exec "$@"'  # no file above 200 KB: the system refuses as a full disk does
    command = ["bash", "-c", limit, "bash", *COMMAND, "--force"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "error: out/train.bin: File too large" in result.stderr
    assert _content("out") == before
    assert _hidden() == []


def test_a_second_process_on_the_same_output_is_refused() -> None:
    with claimed(Path("out")):
        result = _run()
    assert result.returncode == 1
    assert (
        result.stderr == "error: out: another process is making it: wait for that, or name another folder\n"
    )


def test_the_command_prints_its_report_and_json_and_does_nothing_twice() -> None:
    first = _run("--json")
    assert first.returncode == 0, first.stderr
    content = json.loads(first.stdout)
    assert (content["made"], content["vocab_size"]) == (True, 2000)
    again = _run()
    assert again.stdout.startswith("out: made before from the same inputs and settings; nothing to do\n")
    changed = _run("--min-frequency", "3")
    assert (changed.returncode, changed.stdout) == (1, "")
    assert "was made with --min-frequency 1, now it is 3: --force makes it anew" in changed.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--vocab-size", "1.5"], "expected a positive whole number such as 4096, 500K or 1.5G, found '1.5'"),
        (["--shard-size", "0"], "expected a positive whole number"),
        (["--ties", "random"], "'random' is not one of"),
        (["--special", "none", "--special", "<x>"], "--special none: expected alone"),
    ],
)
def test_wrong_usage_exits_with_2(arguments: list[str], message: str) -> None:
    result = _run(*arguments)
    assert result.returncode == 2
    assert message in result.stderr


def test_it_starts_without_torch_and_numpy() -> None:
    script = "import sys; from pylm.cli.main import cli; cli.main(sys.argv[1:], standalone_mode=False); "
    script += "print([name for name in ('torch', 'numpy', 'rich', 'pyarrow') if name in sys.modules])"
    arguments = ["tokenize", "a.txt", "--vocab-size", "300", "--limit-bytes", "100K"]
    result = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True
    )
    assert result.stdout.splitlines()[-1] == "[]"
