"""What `python -m classification.predict` and its sisters share: command line, settings, messages, columns."""

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from clipscore.config.adapting import AdaptingConfig
from clipscore.config.load import REPOSITORY, load_config
from clipscore.data.samples import describe_error

DONE, REFUSED, INTERRUPTED = 0, 2, 130  # exit codes
USER_ERRORS = (ValueError, OSError, RuntimeError, FloatingPointError)

Config = TypeVar("Config", bound=AdaptingConfig)
_PLAIN = str.maketrans({"✓": "+", "✗": "x", "–": "-"})  # marks that must not all become question marks

log = logging.getLogger(__name__)


def command_parser(task: str, config: str, description: str) -> argparse.ArgumentParser:
    """The options that all three commands have; `config` is the YAML file that is read when none is given."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {task}.predict", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="overrides of the configuration; `python -m scripts.run --config FILE --help` lists its keys",
    )
    parser.add_argument("--config", metavar="FILE", default=REPOSITORY / config, help=f"a file of configs/ ({config})")
    parser.add_argument("--json", action="store_true", help="print all of it as JSON")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.set_defaults(task=task)
    return parser


def run_command(
    parser: argparse.ArgumentParser,
    predict: Callable[[argparse.Namespace], dict[str, Any]],
    show: Callable[[dict[str, Any]], str],
    arguments: Sequence[str] | None = None,
) -> int:
    """Parse, `predict`, print the JSON-able result, or the text that `show` makes of it; the exit code."""
    args = parser.parse_intermixed_args(arguments)
    logging.basicConfig(format="%(message)s")
    for package in ("clipscore", args.task):
        logging.getLogger(package).setLevel(logging.INFO)
    try:
        result = predict(args)
    except USER_ERRORS as error:
        log.error("error: %s", describe_error(error), exc_info=args.debug)
        return REFUSED
    except KeyboardInterrupt:
        return INTERRUPTED
    print_text(json.dumps(result, indent=2) if args.json else show(result))
    return DONE


def read_settings(args: argparse.Namespace, config_class: type[Config], *words: str) -> Config:
    """The configuration of a command line; `words` win over its own. ValueError: a method that adapts nothing."""

    def only(task: str) -> type[Config]:
        if task != args.task:
            raise ValueError(f"received {task!r}, but this command needs a file of configs/{args.task}/")
        return config_class

    config = load_config(args.config, [*args.overrides, *words], only)
    assert isinstance(config, config_class)
    if not config.adapts:
        raise ValueError(f"method={config.method} adapts nothing, so nothing changes; take the config of one that does")
    return config


def describe(config: AdaptingConfig) -> str:
    """Method and models in one line."""
    rewards = ", ".join(config.model_names[1]) or "none"
    steps = f", steps={config.steps}, lr={config.lr:g}" * config.tunes
    return f"{config.method}{steps}; policy {config.policy}, reward {rewards}"


def print_text(text: str) -> None:
    """Print as much of a text as the terminal's encoding can show. A reader that has left (`| head`) is no error."""
    encoding = sys.stdout.encoding or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = text.translate(_PLAIN).encode(encoding, "replace").decode(encoding)
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it closes


def columns(rows: Sequence[Sequence[str]], indent: str = "  ") -> list[str]:
    """Lines with the cells of each column below each other; a row may be shorter than others."""
    width = max(map(len, rows), default=0)
    widths = [max((len(row[column]) for row in rows if column < len(row)), default=0) for column in range(width)]
    return [indent + "  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
