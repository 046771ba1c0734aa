"""Tables are learnt on one thread unless the user says otherwise, and processes that are started wait passively."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from gradatim import cli
from gradatim.commands.options import Command
from gradatim.commands.threads import with_threads
from gradatim.provenance import on_threads, process_environment, processes_on_threads


@pytest.mark.parametrize("name", ["fit", "update", "predict"])
@pytest.mark.parametrize(
    ("words", "environment", "threads"),
    [([], None, 1), (["--threads", "2"], None, 2), ([], "3", 3), (["--threads", "1"], "3", 1)],
)
def test_commands_of_tables_compute_on_one_thread(monkeypatch, name, words, environment, threads):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if environment is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", environment)
    seen = []

    def run(options, console):
        assert "threads" not in options
        seen.append(torch.get_num_threads())

    plain = Command("compute", name, lambda parser, arguments: None, run)
    assert "--threads" in cli.COMMANDS[name].parser(name, ["file"]).format_help()
    monkeypatch.setitem(cli.COMMANDS, name, with_threads(replace(plain)))
    with on_threads(3):  # as OMP_NUM_THREADS or the number of cores would have it
        assert cli.main([name, *words]) == 0
        assert torch.get_num_threads() == 3
    assert seen == [threads]


def test_no_thread_is_refused(capsys):
    assert cli.main(["predict", "t.csv", "--state", "s", "--out", "o.csv", "--threads", "0"]) == 2
    assert "--threads must be at least 1; got 0" in capsys.readouterr().err


@pytest.mark.parametrize(("policy", "kept"), [(None, "passive"), ("active", "active")])
def test_processes_that_are_started_wait_passively(monkeypatch, policy, kept):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    if policy is not None:
        monkeypatch.setenv("OMP_WAIT_POLICY", policy)
    before = dict(os.environ)
    assert process_environment(2) == {**before, "OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": kept}
    with pytest.raises(ValueError), processes_on_threads(2):
        assert dict(os.environ) == process_environment(2)
        raise ValueError
    assert dict(os.environ) == before


def test_the_command_line_sets_the_policy_before_torch_is_imported():
    program = (
        "import os, sys\n"
        "from gradatim import cli\n"
        "assert 'torch' not in sys.modules\n"
        "cli.main(['--version']); assert 'OMP_WAIT_POLICY' not in os.environ\n"
        "sys.argv = ['gradatim', '--version']; cli.main()\n"
        "assert os.environ['OMP_WAIT_POLICY'] == 'passive'\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment, capture_output=True)
