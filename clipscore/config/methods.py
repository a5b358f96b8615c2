"""What a method is, whatever its task, and how one is found: by its name, or in a file of the user's own."""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import inspect
import re
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

from clipscore.config.explain import nearest
from clipscore.config.fields import StrictModel

TUNING = frozenset({"steps", "lr", "weight_decay", "eps", "momentum"})  # what methods read that tune weights

Stage = tuple[Any, str, str]  # owner, the name of a function of it, and the stage that its time counts for


class Method:
    """One way to answer a test sample; the tasks' own `Method`s say what one is given, and what it answers."""

    Options: ClassVar[type[StrictModel]] = StrictModel  # its own settings: keys of the configuration like all others
    reads: ClassVar[frozenset[str]] = frozenset()  # those of the settings of some methods that this one reads
    adapts: ClassVar[bool] = True  # whether the answer can differ from the policy's own
    sequential: bool = False  # whether a sample's answer depends on the samples before it
    batches: ClassVar[bool] = False  # whether `torch.vmap` can run the objective over samples, and is all there is
    state: Any = None  # the `EpisodicState` of a method that tunes weights

    def __init__(self, context: Any) -> None:
        """`context` is what the task gives a method at the start of a run: configuration and models."""
        self.context = context
        self.options: Any = context.config  # has the fields of `Options`

    @staticmethod
    def rules(config: Any) -> Iterator[str]:
        """A sentence for each rule of the method's own that a configuration breaks."""
        yield from ()

    def answer(self, given: Any, /) -> Any:
        """The answer for one test sample, both as the task has them; FloatingPointError: a number is not finite."""
        raise NotImplementedError

    def stages(self) -> Iterable[Stage]:
        """Whose time is to be told apart in the records."""
        return ()

    def state_dict(self) -> dict[str, Any]:
        """What the next sample depends on, of tensors, numbers and texts; for sequential methods."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`."""


class Tuned(Method):
    """What methods have in common that tune weights by an objective."""

    reads = TUNING
    objective: Any
    state: Any

    def build_objective(self) -> Any:
        """The loss of one update."""
        raise NotImplementedError

    def stages(self) -> Iterable[Stage]:
        """Those of the loop."""
        yield from ((self.objective, function, "reward") for function in ("observe", "step"))
        yield from [(self.state, "step", "update"), (self.state, "restore", "reset")]

    def state_dict(self) -> dict[str, Any]:
        """The momentum buffer, or nothing."""
        return self.state.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`."""
        self.state.load_state_dict(state)


@functools.cache
def find_method(task: str, name: str) -> type[Method]:
    """The class of a method of a task: a file of TASK/methods without .py; or FILE.py:CLASS, relative to where we are;
    or MODULE:CLASS.

    ValueError: there is none, or it is not what it has to be; the error of a user's file has the lines in it.
    """
    place, colon, class_name = name.rpartition(":")
    if not colon:
        return _built_in(task, name)
    module = _user_module(place)
    found: Any = getattr(module, class_name, None)
    base: Any = importlib.import_module(f"{task}.method").Method
    if not isinstance(found, type):
        own = [key for key, kind in inspect.getmembers(module, inspect.isclass) if kind.__module__ == module.__name__]
        raise ValueError(f"{place} has no class {class_name!r}; it has {', '.join(own) or 'none'}")
    made: Any = found
    if not issubclass(found, base) or made.answer is Method.answer:
        raise ValueError(f"{name} is no method: a subclass of {task}.method.Method with a function answer was expected")
    if made.sequential and made.state_dict is Method.state_dict:
        raise ValueError(f"{name} is sequential, so it needs state_dict and load_state_dict: killed runs go on so")
    return made


def absolute_name(name: str) -> str:
    """A method's name as it is found from every folder."""
    place, _, class_name = name.rpartition(":")
    return f"{Path(place).expanduser().absolute()}:{class_name}" if place.endswith(".py") else name


def readers(task: str, key: str) -> list[str]:
    """Our methods that read a setting."""
    found = {name: find_method(task, name) for name in _names(task)}
    return [name for name, method in found.items() if key in method.reads | method.Options.model_fields.keys()]


def _names(task: str) -> list[str]:
    methods = importlib.import_module(f"{task}.methods")
    return sorted(path.stem for path in Path(methods.__path__[0]).glob("[a-z]*.py"))


def _built_in(task: str, name: str) -> type[Method]:
    names = _names(task)
    if name.endswith(".py"):
        raise ValueError(f"{name} is a file; write {name}:CLASS, with the class of it that is meant")
    if name not in names:
        raise ValueError(
            f"unknown method {name!r}; there are {', '.join(names)}; the nearest is {nearest(name, names)}; one of "
            "your own is FILE.py:CLASS"
        )
    module = importlib.import_module(f"{task}.methods.{name}")
    classes = [value for value in vars(module).values() if isinstance(value, type) and issubclass(value, Method)]
    return next(found for found in classes if found.__module__ == module.__name__)


def _user_module(place: str) -> ModuleType:
    path = Path(place).expanduser().absolute()
    if place.endswith(".py") and not path.is_file():
        raise ValueError(f"no file {path}; a relative path starts in the folder where the command is given")
    with user_code(place):
        if not place.endswith(".py"):
            return importlib.import_module(place)
        unique = hashlib.sha256(str(path).encode()).hexdigest()  # two files may have one name
        spec = importlib.util.spec_from_file_location(f"{path.stem}_{unique}", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # dataclasses look their own module up
        spec.loader.exec_module(module)
        return module


def guard(name: str) -> AbstractContextManager[None]:
    """What to call a method's functions in: errors inside of a user's file are told as those of that file."""
    return user_code(name) if ":" in name else nullcontext()


def source_digest(task: str, name: str) -> str | None:
    """sha256 of the file of a user's method, so that an edited one is another run; None for ours."""
    if ":" not in name:
        return None
    return hashlib.sha256(Path(inspect.getfile(find_method(task, name))).read_bytes()).hexdigest()


@contextmanager
def user_code(place: str) -> Iterator[None]:
    """Turn an error inside of a user's file into a ValueError with its lines, without ours around them."""
    try:
        yield
    except Exception as error:
        if isinstance(error, FloatingPointError) or type(error).__name__ == "OutOfMemoryError":
            raise  # they are told as those of every method
        stem = re.split(r"[./]", (place.rpartition(":")[0] or place).removesuffix(".py"))[-1]
        theirs = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).stem == stem]
        lines = "".join(traceback.format_list(theirs))
        raise ValueError(f"{place} failed: {type(error).__name__}: {error}\n{lines}".rstrip()) from error
