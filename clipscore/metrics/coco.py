"""BLEU, METEOR, ROUGE-L, CIDEr and SPICE as the COCO caption evaluation computes them, behind its PTB tokenizer.

The scorers and the Java programs are pycocoevalcap's. The programs are started here because its wrappers write into the
installed package, follow the machine's locale, lose count of captions that hold other line separators than "\\n", and
wait forever when METEOR dies.

Source: COCO caption evaluation, Chen et al. 2015 (arXiv 1504.00325); official clipscore/generation_eval_utils.py.
"""

import functools
import importlib
import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

COCO_METRICS = {  # the columns of each metric
    "bleu": ("bleu_1", "bleu_2", "bleu_3", "bleu_4"),
    "meteor": ("meteor",),
    "rouge_l": ("rouge_l",),
    "cider": ("cider",),
    "spice": ("spice",),
}

Column = tuple[float, list[float]]  # over all captions, and of each caption

_WITHOUT = "go without it with metrics=[clipscore,refclipscore] (--metrics clipscore,refclipscore)"
ANSWER_S = 50  # a program or a server that is silent for so long has stopped
_SHORT = ("OutOfMemoryError", "Java heap space", "insufficient memory", "Could not reserve enough space")
JAVA_ADVICE = {
    "UnsupportedClassVersionError": "; this Java is too old, version 8 or newer is needed: see `java -version`",
    **dict.fromkeys(_SHORT, "; Java needs more memory: free some, or give the container or job more, at least 4 GB"),
}
_UTF8 = "-Dfile.encoding=UTF-8"  # METEOR reads its input in the locale's encoding otherwise


def one_line(text: str) -> str:
    """Single spaces for every run of white space and line separators; half surrogate pairs become "?"."""
    return " ".join(text.encode(errors="replace").decode().split())


def official(module: str) -> Any:
    """A module of pycocoevalcap, imported when a metric needs it; RuntimeError when it is not installed."""
    try:
        return importlib.import_module(f"pycocoevalcap.{module}")
    except ModuleNotFoundError as error:
        missing = f"{', '.join(COCO_METRICS)} need pycocoevalcap, which cannot be imported ({error})"
        raise RuntimeError(f"{missing}: python -m pip install pycocoevalcap, or {_WITHOUT}") from error


def has_java() -> bool:
    """Whether a `java` command is there and runs."""
    try:
        done = subprocess.run(["java", "-version"], capture_output=True, check=False, timeout=ANSWER_S)
        return done.returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def check_programs(metrics: Sequence[str]) -> None:
    """RuntimeError when pycocoevalcap is missing, or a Java that runs the tokenizer of all these metrics."""
    official("tokenizer.ptbtokenizer")
    if not has_java():
        why = f"{', '.join(metrics)} need Java and no java command runs: apt-get install default-jre-headless"
        raise RuntimeError(f"{why}, conda install conda-forge::openjdk, or {_WITHOUT}")
    _try_tokenizer()


@functools.cache
def _try_tokenizer() -> None:
    """What is wrong with Java is said before the captions are written, not after."""
    ptb_tokenize({"": ["a caption"]})


def has_spice_models() -> bool:
    """Whether the parser that SPICE needs was downloaded before."""
    try:
        models = official("spice.get_stanford_models")
    except RuntimeError:
        return False
    return (Path(models.__file__).parent / models.SPICELIB / f"{models.JAR}-models.jar").is_file()


def coco_scores(
    candidates: Mapping[str, str], references: Mapping[str, Sequence[str]], metrics: Sequence[str]
) -> tuple[dict[str, Column], list[str]]:
    """Compare each caption with its references: image id -> one or more, none of them blank, for every candidate.

    Returns column name -> score over all captions and per caption, in the order of `candidates`; fractions, not per
    cent. SPICE is missing where it cannot run, and then a sentence of the second result says why. RuntimeError:
    pycocoevalcap is missing, or Java or a Java program failed.
    """
    # Two runs, as in the official code: the tokenizer looks ahead, so what follows a caption is part of its input.
    gts = ptb_tokenize({key: references[key] for key in candidates})
    res = ptb_tokenize({key: [caption] for key, caption in candidates.items()})
    columns: dict[str, Column] = {}
    notes = []
    for name in metrics:
        try:
            columns.update(zip(COCO_METRICS[name], _SCORERS[name](gts, res), strict=True))
        except Exception as error:
            if name != "spice":
                raise
            notes.append(f"SPICE is left out, it cannot run here: {type(error).__name__}: {one_line(str(error))}")
    return columns, notes


def ptb_tokenize(captions: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Lower-case tokens without punctuation, joined by spaces; RuntimeError: another number of lines came back."""
    ptbtokenizer = official("tokenizer.ptbtokenizer")
    flat = [one_line(caption) for group in captions.values() for caption in group]
    jar = Path(ptbtokenizer.__file__).parent / ptbtokenizer.STANFORD_CORENLP_3_4_1_JAR
    program = ["edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase"]
    patience = ANSWER_S + len(flat) / 1000  # s
    lines = _run(["java", _UTF8, "-cp", str(jar), *program], "\n".join(flat), timeout=patience).split("\n")
    if len(lines) != len(flat):
        raise RuntimeError(f"the PTB tokenizer made {len(lines)} lines of {len(flat)} captions")
    words = (" ".join(w for w in line.split(" ") if w not in ptbtokenizer.PUNCTUATIONS) for line in lines)
    return {key: [next(words).strip() for _ in group] for key, group in captions.items()}


Tokenized = Mapping[str, list[str]]


def _plain(gts: Tokenized, res: Tokenized, name: str) -> list[Column]:
    """ROUGE-L or CIDEr, by the name of its class."""
    scorer = getattr(official(f"{name.lower()}.{name.lower()}"), name)()
    overall, each = scorer.compute_score(gts, res)
    return [(float(overall), each.tolist())]


def _meteor(gts: Tokenized, res: Tokenized) -> list[Column]:
    meteor = official("meteor.meteor")
    command = ["java", "-Xmx2G", _UTF8, "-jar", meteor.METEOR_JAR, "-", "-", "-stdio", "-l", "en", "-norm"]
    pipe = subprocess.PIPE
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command, cwd=Path(meteor.__file__).parent, stdin=pipe, stdout=pipe, stderr=errors, encoding="utf-8"
        )
        stdin, stdout = process.stdin, process.stdout
        assert stdin and stdout

        def answer(*fields: str) -> str:
            patience = threading.Timer(ANSWER_S, process.kill)  # a dead one's answer is empty
            patience.start()
            if fields:
                print(" ||| ".join(fields), file=stdin, flush=True)
            line = stdout.readline().strip()
            patience.cancel()
            return line

        try:
            statistics = [answer("SCORE", *gts[key], res[key][0]) for key in gts]
            first = answer("EVAL", *statistics)
            *each, overall = [float(line) for line in (first, *(answer() for _ in gts))]
        except (OSError, ValueError) as error:
            process.kill()
            process.wait()
            errors.seek(0)
            raise RuntimeError(f"METEOR stopped, or was silent for {ANSWER_S} s: {_reason(errors.read())}") from error
        finally:
            process.kill()
            process.communicate()
    return [(overall, each)]


def _spice(gts: Tokenized, res: Tokenized) -> list[Column]:
    if not has_spice_models():
        module = official("spice.get_stanford_models").__name__
        patient = f"import runpy, socket; socket.setdefaulttimeout({ANSWER_S}); runpy.run_module({module!r}"
        _run([sys.executable, "-c", f"{patient}, run_name='__main__')"])
    spice = official("spice.spice")
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "captions.json"), Path(folder, "scores.json")
        source.write_text(json.dumps([{"image_id": key, "test": res[key][0], "refs": gts[key]} for key in gts]))
        command = ["java", "-Xmx8G", "-jar", spice.SPICE_JAR, str(source), "-out", str(target), "-subset", "-silent"]
        _run(command, folder=Path(spice.__file__).parent)
        scores = {row["image_id"]: float(row["scores"]["All"]["f"]) for row in json.loads(target.read_text())}
    each = [scores[key] for key in gts]
    return [(float(np.mean(each)), each)]


_SCORERS: dict[str, Callable[[Tokenized, Tokenized], list[Column]]] = {
    "bleu": lambda gts, res: list(zip(*official("bleu.bleu").Bleu(4).compute_score(gts, res, verbose=0), strict=True)),
    "meteor": _meteor,
    "rouge_l": functools.partial(_plain, name="Rouge"),
    "cider": functools.partial(_plain, name="Cider"),
    "spice": _spice,
}


def _run(command: list[str], text: str = "", folder: Path | None = None, timeout: float | None = None) -> str:
    """The standard output of a program; what it prints besides is kept for the error message."""
    try:
        done = subprocess.run(command, input=text.encode(), capture_output=True, cwd=folder, timeout=timeout)
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"{Path(command[0]).name} has not ended in {timeout:.0f} s, and was stopped") from error
    if done.returncode:
        reason = _reason(done.stderr.decode(errors="replace"))
        raise RuntimeError(f"{Path(command[0]).name} exited with {done.returncode}: {reason}")
    return done.stdout.decode()


def _reason(errors: str) -> str:
    """The line that says what happened: the last of a Python traceback, the first of a Java one."""
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    named = [line for line in lines if "Error" in line or "Exception" in line]
    advice = next((text for sign, text in JAVA_ADVICE.items() if sign in errors), "")
    return (named or lines or ["no message"])[-1] + advice
