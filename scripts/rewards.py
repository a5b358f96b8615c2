"""What a stronger reward buys, one row with several reward models: `python -m scripts.rewards --config FILE ...`.

Each is a run as any other, named NAME__reward-MODEL, that goes on after a kill; at the end all are one table. Words are
those of `python -m scripts.run`.
"""

import argparse
import re
import sys
from collections.abc import Sequence

from clipscore.cli import DONE, print_text
from clipscore.config.adapting import AdaptingConfig
from scripts import run
from scripts.runs.command_line import CommandLine
from scripts.runs.folder import RunFolder, finished_summary, recorded_summary
from scripts.runs.process import command
from scripts.runs.summary import summary_table

STRENGTHS = ("ViT-B/16", "ViT-L/14", "ViT-L/14@336px", "ViT-SO400M-14-SigLIP-384/webli")


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.rewards", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    without = f"the policy itself, {', '.join(STRENGTHS)} if not given"
    parser.add_argument("--rewards", metavar="A,B", help=f"models, weakest first; {without}")
    args, words = parser.parse_known_args(arguments)
    return command(lambda: compare(args.rewards.split(",") if args.rewards else [], words))


def compare(rewards: Sequence[str], words: Sequence[str]) -> int:
    """Run a command line with each reward model, and print one table; what one lacks is said before the first."""
    configs: list[tuple[str, AdaptingConfig]] = []
    for plain in CommandLine(words).configs(run.config_class):
        assert isinstance(plain, AdaptingConfig)
        for reward in rewards or dict.fromkeys([plain.policy, *STRENGTHS]):
            own = [f"dataset={plain.dataset}", f"reward.models={reward}"]
            own.append(f"name={plain.name}__reward-{re.sub(r'[^a-zA-Z0-9.-]+', '-', reward)}")
            [config] = CommandLine([*words, *own]).configs(run.config_class)
            assert isinstance(config, AdaptingConfig)
            configs.append((reward, config))
    for _, config in configs:
        if finished_summary(config) is None:
            run.task_class(config).check(config)
            RunFolder(config).check()
    summaries = []
    for reward, config in configs:
        run.run_one(config)
        summaries.append((recorded_summary(config) or {}) | {"dataset": f"{config.column}, reward {reward}"})
    print_text(summary_table(summaries))
    return DONE


if __name__ == "__main__":
    sys.exit(main())
