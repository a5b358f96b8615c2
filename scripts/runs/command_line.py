"""The command line of `python -m scripts.run`: data sets, sweeps and overrides -> one configuration for each run."""

import argparse
import itertools
import json
from collections.abc import Callable, Sequence

from clipscore.config.explain import describe_fields
from clipscore.config.fields import RunConfig
from clipscore.config.load import ConfigError, available_configs, draft_config, load_config

HELP = """\
overrides (key=value, dots for sections, values as in YAML; a later one wins):
  dataset=imagenet_a          one data set, or several separated by commas; replaces --datasets
  limit=200                   the first 200 of the shuffled samples; raise it later and the rows are used again
  lr=7e-3 reward.scale=2.5    any key of the configuration; --config FILE --help lists all with their values
  seed=1 name=my_run device=cuda:0 precision=fp16 num_workers=8 num_threads=2 procs_per_gpu=2
  shard=0/4                   every fourth sample from the first; 1/4, 2/4 and 3/4 do the others, each when it likes
  on_error=stop               end at an unreadable sample, instead of leaving it out and counting it
  data_root=DIR pretrained_root=DIR output_root=DIR
                              else RLCF_DATA, RLCF_PRETRAINED, RLCF_OUTPUT, else configs/paths.yaml

A run writes to OUTPUT/NAME__DATASET__seedSEED, with __orderN behind it for an order_seed other than 0. The same command
takes up a run that was stopped, and prints the summary of a finished one. Several processes:
torchrun --standalone --nproc-per-node=N -m scripts.run --config ...
Exit code: 0 done (a sample that was left out is counted), 1 no sample has a result, or one has none with on_error=stop,
2 bad input or a full disk, 130 or 143 stopped by a signal.
"""

ConfigClass = Callable[[str], type[RunConfig]]  # name of a task -> class of its configuration


class CommandLine:
    """What was asked for: one run for each data set and each combination of the sweeps."""

    def __init__(self, arguments: Sequence[str] | None) -> None:
        """Take a command line apart; sys.argv when None. Exits with 2 and the usage when it makes no sense."""
        self.parser = argparse.ArgumentParser(
            prog="python -m scripts.run",
            usage="%(prog)s --config FILE [--datasets NAME ...] [key=value ...]",
            description="Run a test-time adaptation on one or more data sets.",
            epilog=HELP,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            add_help=False,
        )
        add = self.parser.add_argument
        add("overrides", nargs="*", metavar="key=value", help="overrides of the configuration")
        add("--config", metavar="FILE", help="a YAML file under configs/")
        add("--datasets", nargs="+", default=[], metavar="NAME", help="data sets, unless dataset=... is given")
        add("--sweep", action="append", default=[], metavar="KEY=A,B", help="a run for each, unless KEY=... is given")
        add("--debug", action="store_true", help="show the traceback of an error")
        add("-h", "--help", action="store_true", help="show this, and with --config all keys and values")
        self.args = self.parser.parse_intermixed_args(arguments)
        self.files = [file for file in available_configs() if "/train_" not in file]  # trainings are not runs
        if self.args.config is None and not self.args.help:
            self.parser.error(
                "--config FILE is missing, such as configs/classification/rlcf_prompt.yaml; --help lists all"
            )
        if bad := [word for word in self.args.sweep if not all(word.partition("="))]:
            self.parser.error(f"argument --sweep: expected KEY=VALUE,VALUE, got {bad[0]!r}")
        names = [word for word in self.args.datasets if "=" not in word]
        self.words: list[str] = []
        swept = {"dataset": ",".join(names)} | dict(word.split("=", 1) for word in self.args.sweep)
        for word in [*self.args.overrides, *(word for word in self.args.datasets if "=" in word)]:
            key, equals, values = word.partition("=")
            if equals and key in swept:  # an override replaces a sweep, and may hold several values too
                swept[key] = values
            else:
                self.words.append(word)
        self.sweeps = {key: _values(text) for key, text in swept.items() if text or key != "dataset"}

    def configs(self, config_class: ConfigClass) -> list[RunConfig]:
        """One configuration per data set and combination; ConfigError has the mistakes of all of them."""
        configs, problems = [], []
        for values in itertools.product(*self.sweeps.values()):
            chosen = dict(zip(self.sweeps, values, strict=True))
            dataset = chosen.pop("dataset", None)
            words = [*self.words, *(f"{key}={value}" for key, value in chosen.items())]
            try:
                configs.append(load_config(self.args.config, words, config_class, dataset))
            except ConfigError as error:
                problems += error.problems
        if problems:
            raise ConfigError(problems)
        return configs

    def help_text(self, config_class: ConfigClass) -> str:
        """The general help, and the config files; with one of them its keys instead, see `describe_keys`."""
        if self.args.config is None:
            more = ["config files:", *(f"  {file}" for file in self.files)]
        else:
            more = describe_keys(self.args.config, self.words, config_class)
        return "\n".join([self.parser.format_help(), *more])


def describe_keys(path: str, words: Sequence[str], config_class: ConfigClass) -> list[str]:
    """A line for each key of a config file, with type and current value; ConfigError: something cannot be read."""
    draft = draft_config(path, words)
    if draft.problems:
        raise ConfigError(draft.problems)
    found = config_class(draft.values.get("task", "")).for_values(draft.values)
    draft.choose(found.canonical_dataset(str(draft.values.get("dataset"))))
    lines = [f"keys of {path}, with type and current value:"]
    for key, kind, value, text in describe_fields(found, draft.values):
        shown = value if isinstance(value, str) else json.dumps(value)
        lines.append(f"  {key}: {kind} = {shown}" + (f"    # {text}" if text else ""))
    return lines


def _values(text: str) -> list[str]:
    """a,b -> a and b; a value with brackets is one."""
    values = [text] if set(text) & set("[]{}") else text.split(",")
    return list(dict.fromkeys(value.strip() for value in values if value.strip())) or [""]
