"""The command line, which alone prints: fit, update, forget, remap, merge, predict, train, eval, compare and more.

Source: jsonargparse; exit codes as in argparse (2) and in POSIX shells (130, 143).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from jsonargparse import ArgumentParser
from rich.console import Console

from .commands import boundary, compare, demo, fit, forget, info, judge, listing, merge, predict, train
from .commands.options import Command, parse
from .commands.signals import ended_by_signals, exit_code
from .commands.threads import wait_passively, with_threads
from .names import hint


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    With `--debug`, or GRADATIM_DEBUG=1 in the environment, an error keeps its traceback.

    Args:
        argv: the arguments behind the program's name. None: those of this process.

    Returns:
        0, or 2 after one line on stderr for a wrong call, or 130 when interrupted, or 143 when terminated, or 141 when
        nobody reads on.

    Raises:
        ValueError: a wrong call, with `--debug` only.

    Example:
        >>> from gradatim.cli import main
        >>> main(["list", "maml"])
        maml: gradient descent from a learnt start, trained through the gradients (second order)
        ...
        0
    """
    if argv is None:
        wait_passively()
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments or os.environ.get("GRADATIM_DEBUG", "0") not in ("", "0")
    arguments = [argument for argument in arguments if argument != "--debug"] or ["--help"]
    width = None if sys.stdout.isatty() else 100
    console = Console(width=width, highlight=False, quiet=not train.is_first())
    received: list[int] = []
    try:
        with ended_by_signals() as received:
            _run(arguments, console)
    except SystemExit as stop:  # raised by --help and --version after they have printed
        return stop.code if isinstance(stop.code, int) else 2
    except BrokenPipeError:  # whoever read the output has ended, as head does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (ValueError, OSError) as error:
        if debug:
            raise
        return _refuse(_sentence(error), 2)
    except KeyboardInterrupt as stop:
        if debug:
            raise
        further = "; train goes on with --resume" if arguments[0] == "train" else ""
        return _refuse(str(stop) or f"interrupted{further}", exit_code(received))
    return 0


def _sentence(error: Exception) -> str:
    """Return an error in one line. An error of the system becomes the file and what is wrong with it."""
    text = str(error)
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        text = f"{error.filename}: {error.strerror}"
    return " ".join(text.split())


def _refuse(sentence: str, code: int) -> int:
    sys.stderr.write(f"gradatim: {sentence}\n")
    return code


def _run(arguments: list[str], console: Console) -> None:
    name = arguments[0]
    if name in COMMANDS:
        command = COMMANDS[name]
        # Import paths such as mymodule:MyFamily begin in the current folder. It comes last: a statistics.py beside a
        # table must not stand in for Python's own.
        if os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())
        command.run(parse(command.parser(name, arguments[1:]), arguments[1:]), console)
        return
    if not name.startswith("-"):
        raise ValueError(f"no command is called {name!r}: {hint(name, COMMANDS, quote=str)}")
    parser = ArgumentParser(
        prog="gradatim",
        description="Iterative amortized inference: learners that refine their answer to a new task step by step.",
        epilog="gradatim COMMAND --help explains a command. With --debug an error keeps its traceback.",
        version=vars(sys.modules["gradatim"])["__version__"],
        exit_on_error=False,
    )
    commands = parser.add_subcommands(title="commands", metavar="COMMAND")
    for title, command in COMMANDS.items():
        commands.add_subcommand(title, command.parser(title, []), help=command.summary)
    parse(parser, arguments)


COMMANDS: dict[str, Command] = {
    "list": Command(
        "show methods, task families and recipes, or the options of one of them",
        "gradatim list maml",
        listing.list_options,
        listing.show_list,
    ),
    "fit": Command(
        "learn a table in files of any length, in one pass, and keep what is known in a small state",
        "gradatim fit train.csv --target y --state task.safetensors",
        fit.fit_options,
        fit.fit,
    ),
    "update": Command(
        "learn more files into a state; a kill at any moment leaves the old state or the new one",
        "gradatim update more.parquet --state task.safetensors",
        fit.update_options,
        fit.update,
    ),
    "forget": Command(
        "take rows of files away from a state, as if they had never been learned",
        "gradatim forget withdrawn.csv --state task.safetensors",
        forget.forget_options,
        forget.forget,
    ),
    "remap": Command(
        "learn more files whose rows have left the range of the first ones, with a new map of the columns",
        "gradatim remap recent.csv --state task.safetensors",
        fit.remap_options,
        fit.remap,
    ),
    "merge": Command(
        "make one state of several that were learned apart, on as many machines as you like",
        "gradatim merge monday.safetensors tuesday.safetensors --out whole.safetensors",
        merge.merge_options,
        merge.merge,
    ),
    "predict": Command(
        "predict the rows of files from a state",
        "gradatim predict test.csv --state task.safetensors --out predictions.csv --proba",
        predict.predict_options,
        predict.predict,
    ),
    "train": Command(
        "meta-train a learner by a recipe, any field of which an option can change",
        "gradatim train digits --train.iterations 100 --method.width 32 --out runs/mine",
        train.options,
        train.run,
    ),
    "eval": Command(
        "adapt a trained learner to unseen tasks and show its error step by step",
        "gradatim eval runs/digits --steps 1,2,5,10,20",
        judge.eval_options,
        judge.evaluate,
    ),
    "info": Command(
        "show what a checkpoint or a saved state holds",
        "gradatim info runs/digits/learner.safetensors",
        info.info_options,
        info.info,
    ),
    "boundary": Command(
        "draw the decision boundary of a table of two columns, whole or as it refines step by step",
        "gradatim boundary moons.csv --target y --steps",
        boundary.boundary_options,
        boundary.boundary,
    ),
    "compare": Command(
        "meta-train or tune methods, and show how well each predicts on unseen tasks, step by step",
        "gradatim compare ridge,adam,maml,parametric-both --family LinearRegression --family.dim 4 --seeds 1 "
        "--train.iterations 100 --plot curve.png",
        compare.compare_options,
        compare.compare,
    ),
    "demo": Command(
        "learn a real table in one pass, mini-batch by mini-batch, beside other learners, and draw the curve",
        "gradatim demo",
        demo.demo_options,
        demo.demo,
    ),
}
COMMANDS |= {
    name: with_threads(COMMANDS[name])
    for name in ("fit", "update", "forget", "remap", "merge", "predict", "boundary")
}
