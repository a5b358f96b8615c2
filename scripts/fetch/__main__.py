"""Fetch the weights of the paper's tables, and check them: `python -m scripts.fetch [name ...]`.

A name is a group (clip, opt, ...) or one file as --list shows it; without names it is every weight that a table needs.
Files that are whole are left alone, and so are files that are not what they should be: those are named. A download that
was cut off goes on where it ended. Weights go under pretrained_root; annotation files belong under data_root, which is
only written to with --annotations.
"""

import argparse
import difflib
import http.client
import logging
import sys
import urllib.error
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from clipscore.cli import print_text
from clipscore.config.load import roots
from scripts.fetch.download import fetch, find_fault
from scripts.fetch.manifest import FILES, RemoteFile
from scripts.runs.process import command, script_parser

DONE, INCOMPLETE, REFUSED = 0, 1, 2  # exit codes; a signal gives 128 + its number

log = logging.getLogger("scripts.fetch")  # __name__ is __main__ under python -m


def choose(names: Sequence[str], with_annotations: bool) -> list[RemoteFile]:
    """The files of these groups or paths, without names all that a table needs; ValueError: an unknown name."""
    if not names:
        return [file for file in FILES if file.needed_by and (with_annotations or not file.is_annotation)]
    known = {name for file in FILES for name in (file.group, file.path)}
    for name in names:
        if name not in known:
            nearest = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0)[0]
            groups = ", ".join(dict.fromkeys(file.group for file in FILES))
            raise ValueError(f"no file or group {name!r}; nearest: {nearest}; groups: {groups}; files: see --list")
    return [file for file in FILES if file.path in names or (file.group in names and file.needed_by)]


def find_place(file: RemoteFile, places: Mapping[str, str]) -> Path:
    """Where a file is under the three roots, or where it goes: beside what is there of its data set."""
    root = Path(places["data_root" if file.is_annotation else "pretrained_root"])
    target, *others = [root / path for path in (file.path, *file.other_paths)]
    folders = [path for path in (target, *others) if file.is_annotation and path.parent.is_dir()]
    if not file.is_annotation:
        others.append(Path(places["output_root"]) / file.path)  # a run looks for trained mappers there too
    there = [target] if target.exists() else [path for path in others if path.is_file()]
    return [*there, *folders, target][0]


def describe(file: RemoteFile) -> str:
    """Size and checksum in words."""
    size = "size not published" if file.size is None else f"{file.size:,} bytes"
    return f"{size}, {(file.checksum or 'checksum not published').replace(':', ' ')}"


def advice(file: RemoteFile, target: Path) -> str:
    """What a person does to get a file."""
    if file.by_hand:
        return f"by hand: see {file.page}; {file.by_hand}; it belongs at {target}"
    if file.is_archived:
        return f"get {file.address} and put it, packed or unpacked, at {target.parent}.zip or {target}"
    return f"get {file.address} ({describe(file)}) and copy it to {target}"


@dataclass
class Fetching:
    """One call of the command: what it may do, and which servers cannot be reached."""

    places: Mapping[str, str]
    only_check: bool
    with_annotations: bool
    unreachable: dict[str, str] = field(default_factory=dict)

    def handle(self, file: RemoteFile) -> bool:
        """Check a file, and fetch it when it is missing; tells in one line, and returns whether it is whole."""
        target = find_place(file, self.places)
        if target.exists():
            fault = find_fault(target, file)
            if fault:
                log.error("wrong: %s %s; it is left alone, move it away to have it fetched", target, fault)
            else:
                log.info("%s: %s (%s)", "whole" if file.checksum else "there", target, describe(file))
            return not fault
        server = urllib.parse.urlsplit(file.address or "").netloc
        problem = self.unreachable.get(server, "")
        if file.is_annotation and not self.with_annotations:
            problem = "the data folder is written to with --annotations only"
        if self.only_check or file.address is None:
            problem = "only checking" if self.only_check else "no direct address"
        try:
            if not problem:
                fetch(file, target)
                log.info("fetched: %s (%s)", target, describe(file))
                return True
        except BlockingIOError:
            problem = "another process is fetching it"
        except (ValueError, OSError, http.client.HTTPException) as error:
            problem = f"{type(error).__name__}: {error}"
            if isinstance(error, urllib.error.URLError) and not isinstance(error, urllib.error.HTTPError):
                self.unreachable[server] = problem  # do not wait for it again
        log.error("missing: %s (%s): %s", file.path, problem, advice(file, target))
        return False


def listing(files: Sequence[RemoteFile], places: Mapping[str, str]) -> str:
    """The files as text: group, path, size and checksum, who needs it, where it is or goes."""
    lines = []
    for file in files:
        target = find_place(file, places)
        lines += [
            f"{file.group:<9} {file.path}",
            f"          {describe(file)}",
            f"          for {file.needed_by or 'models of your own choice'}; {file.address or file.page}",
            f"          {'there' if target.exists() else 'missing'}: {target}",
        ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = script_parser("fetch", __doc__)
    parser.add_argument("names", nargs="*", metavar="name", help="group or file; default: all that a table needs")
    parser.add_argument("--annotations", action="store_true", help="annotation files too, written under data_root")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--list", action="store_true", help="only show what there is, with addresses and checksums")
    action.add_argument("--check", action="store_true", help="only check what is there, download nothing")
    args = parser.parse_args(arguments)
    return command(lambda: _fetch(args), "where it ended")


def _fetch(args: argparse.Namespace) -> int:
    files = choose(args.names, args.annotations) if args.names or not args.list else list(FILES)
    if args.list:
        print_text(listing(files, roots()))
        return DONE
    fetching = Fetching(roots(), args.check, args.annotations)
    whole = sum(fetching.handle(file) for file in files)
    log.info("%d of %d files are whole", whole, len(files))
    return DONE if whole == len(files) else INCOMPLETE


if __name__ == "__main__":
    sys.exit(main())
