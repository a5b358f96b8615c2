"""What a task gives the launcher; tasks fit it without importing it."""

from collections.abc import Iterable
from typing import Any, Protocol

from scripts.runs.rows import Row


class Task(Protocol):
    """A task with its models and data. Rows that it is given are without errors, and at least one.

    A sample has an `id`, and an `error`: why it could not be read, as a sentence that names the file, or None.
    """

    ids: list[str]  # of all samples, in run order
    sequential: bool  # a sample's result depends on the samples before it
    fingerprint: dict[str, str]  # hashes of weights and data
    about: dict[str, Any]  # what a reader of the rows needs to know, e.g. class names
    progress_metric: str  # name of the number that `progress` gives
    published: int | None  # number of samples of the paper's column; may be left out

    def __init__(self, config: Any) -> None: ...
    @classmethod
    def check(cls, config: Any) -> None: ...  # find what is missing for a run, without the cost of building it
    def samples(self, ids: list[str]) -> Iterable[Any]: ...  # these samples, in this order
    def adapt(self, sample: Any) -> Row: ...  # one sample -> one row that JSON can hold, with "id" and "seconds"
    def progress(self, rows: list[Row]) -> float: ...  # the running metric; asked for again and again, so it is cheap
    def summarize(self, rows: list[Row]) -> dict[str, float | int]: ...  # metrics, once all rows are there
    def state_dict(self) -> dict[str, Any]: ...  # what a sequential task carries from sample to sample
    def load_state_dict(self, state: dict[str, Any]) -> None: ...  # go on from a `state_dict`
