"""What a stronger reward buys, one row with several reward models: `python -m scripts.rewards --config FILE ...`.

Each is a run as any other, named NAME__reward-MODEL, that goes on after a kill; at the end all are one table. Words are
those of `python -m scripts.run`.
"""

import re
import sys
from collections.abc import Sequence

from clipscore.cli import DONE, print_text
from clipscore.config.adapting import AdaptingConfig
from clipscore.config.fields import RunConfig
from scripts import run
from scripts.runs.command_line import CommandLine
from scripts.runs.folder import RunFolder, finished_summary, recorded_summary
from scripts.runs.process import command, script_parser
from scripts.runs.summary import summary_table

STRENGTHS = ("ViT-B/16", "ViT-L/14", "ViT-L/14@336px", "ViT-SO400M-14-SigLIP-384/webli")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = script_parser("rewards", __doc__)
    without = f"the policy itself, {', '.join(STRENGTHS)} if not given"
    parser.add_argument("--rewards", metavar="A,B", help=f"models, weakest first; {without}")
    args, words = parser.parse_known_args(arguments)
    return command(lambda: compare(args.rewards.split(",") if args.rewards else [], words))


def compare(rewards: Sequence[str], words: Sequence[str]) -> int:
    """Run a command line with each reward model, and print one table; what one lacks is said before the first."""
    configs: list[tuple[str, RunConfig]] = []
    for plain in CommandLine(words).configs(run.config_class):
        assert isinstance(plain, AdaptingConfig)
        for reward in rewards or dict.fromkeys([plain.policy, *STRENGTHS]):
            own = [f"dataset={plain.dataset}", f"reward.models={reward}"]
            own.append(f"name={plain.name}__reward-{re.sub(r'[^a-zA-Z0-9.-]+', '-', reward)}")
            configs += [(reward, config) for config in CommandLine([*words, *own]).configs(run.config_class)]
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
