"""A command that a signal ends: the state stays, nothing is left beside it, one line says so, and the code is right."""

import signal
import subprocess
import sys

import pytest

from gradatim.cli import main

WAITING = """
import sys, time
from gradatim import RefinedClassifier, cli
from gradatim.files import replace

def wait(*arguments, **options):
    print("waiting", flush=True)
    time.sleep(60)

{place} = wait
raise SystemExit(cli.main(sys.argv[1:]))
"""
PLACES = {
    "it learns": "RefinedClassifier.predict_then_learn",
    "it writes": "replace.os.fsync",
    "it reads back": "replace._verify",
    "it renames": "replace.os.replace",
}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("home")
    text = "x,y\n" + "".join(f"{i % 7},{'ab'[i % 7 > 3]}\n" for i in range(60))
    (folder / "rows.csv").write_text(text)
    state = ["--state", str(folder / "s"), "--quiet"]
    assert main(["fit", str(folder / "rows.csv"), "--target", "y", *state]) == 0
    return folder


def ended(place, sign, *words):
    """Run a command that waits at a place, send it a signal there, and return its code and its stderr."""
    command = [sys.executable, "-c", WAITING.format(place=place), *map(str, words)]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(sign, signal.SIG_DFL),  # these tests may run under nohup
    )
    assert process.stdout is not None
    while process.stdout.readline() not in ("waiting\n", ""):
        pass
    process.send_signal(sign)
    _, err = process.communicate(timeout=30)
    return process.returncode, err


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_an_update_that_is_ended_leaves_the_state(home, place):
    before = (home / "s").read_bytes()
    code, err = ended(place, signal.SIGTERM, "update", home / "rows.csv", "--state", home / "s", "--quiet")
    assert (code, err) == (143, f"gradatim: interrupted; {home / 's'} is unchanged\n")
    assert (home / "s").read_bytes() == before
    assert sorted(file.name for file in home.iterdir()) == ["rows.csv", "s"]


@pytest.mark.parametrize(
    ("sign", "wanted"), [(signal.SIGINT, 130), (signal.SIGHUP, 129)], ids=["Ctrl-C", "a lost terminal"]
)
def test_other_signals_end_it_likewise(home, sign, wanted):
    code, err = ended(
        PLACES["it learns"], sign, "update", home / "rows.csv", "--state", home / "s", "--quiet"
    )
    assert (code, err.count("\n")) == (wanted, 1)
    assert "is unchanged" in err


def test_only_train_speaks_of_resuming(home, capsys, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("gradatim.commands.info.checkpoint_path", interrupted)
    assert main(["info", str(home / "s")]) == 130
    assert capsys.readouterr().err == "gradatim: interrupted\n"
