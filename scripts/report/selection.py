"""Which samples the gallery shows: the same ones every time, of each outcome as many as of the others."""

import hashlib
from collections import deque
from collections.abc import Mapping

from scripts.runs.samples import BROKEN, FELL, FIXED, NOT_ADAPTED, RIGHT, ROSE, UNCHANGED, WRONG

OUTCOMES = {  # what the gallery's filters are called
    FIXED: "fixed by adaptation", BROKEN: "broken by adaptation", RIGHT: "right", WRONG: "wrong",
    ROSE: "reward rose", FELL: "reward fell", UNCHANGED: "unchanged", NOT_ADAPTED: "not adapted",
}  # fmt: skip


def choose(outcomes: Mapping[str, str], count: int) -> list[str]:
    """Sample ids, at most `count`, balanced over their outcomes (sample id -> outcome).

    Inside an outcome the order is that of the ids' hashes: it looks random, favours no class, does not depend on the
    order of the records, and is the same for two runs on the same data.
    """
    waiting: dict[str, deque[str]] = {}
    for key in sorted(outcomes, key=lambda key: hashlib.sha256(key.encode(errors="surrogatepass")).digest()):
        waiting.setdefault(outcomes[key], deque()).append(key)
    chosen: list[str] = []
    while len(chosen) < min(count, len(outcomes)):
        for name in OUTCOMES:
            if waiting.get(name) and len(chosen) < count:
                chosen.append(waiting[name].popleft())
    return chosen
