"""The interface between the tasks and the code that is common to all of them.

The training loop, checkpoints, the command line and the service use a `Task` and the `Job` of a
run, and depend on nothing else about the model. `systems` lists the tasks.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..options import Options
from .options import OptionGroups

if TYPE_CHECKING:
    import torch
    from PIL import Image
    from torch import Tensor, nn

    from ..checkpoints.checkpoint import Checkpoint
    from ..data.dataset import CaptionData
    from ..data.images import Transform
    from ..evaluation.options import EvaluationRequest
    from ..models.losses import Loss


class Result(Protocol):
    """The result of evaluating a split."""

    @property
    def numbers(self) -> dict[str, float]:
        """Scores by name; higher is better for the scores that `Task.scores` lists."""

    def describe(self) -> str:
        """Return the scores and their protocol as lines of text."""


@dataclass(frozen=True)
class JobInputs:
    """The inputs from which a task builds the job of a run.

    options: the run's options. data: the data set, without images that cannot be decoded. run: the
    run's directory. start: the checkpoint that provides the weights and the text model, from the
    run itself if it is resumed, otherwise from another run; None if there is none.
    """

    options: OptionGroups
    data: "CaptionData"
    transform: "Transform"
    device: "torch.device"
    run: Path
    start: "Checkpoint | None"


class Job(Protocol):
    """The part of a training run that depends on the task.

    For a model that is fitted in closed form, `steps`, `batches`, `prepare`, `observe` and `show`
    are not used.
    """

    @property
    def model(self) -> "nn.Module":
        """The model that is trained, averaged and saved."""

    @property
    def steps(self) -> int:
        """The number of batches per epoch."""

    @property
    def setting(self) -> str:
        """How the val split is evaluated, such as "val split, beam size 3"."""

    @property
    def fit(self) -> "Callable[[], None] | None":
        """A function that fits the model in closed form; None if the model is trained in steps."""

    def batches(self, epoch: int, first: int) -> Iterable[Any]:
        """Yield an epoch's batches, starting with batch `first`, as `training.loop.fit` expects."""

    def prepare(self, batch: Any) -> "tuple[Any, dict[str, Tensor]]":
        """Return the batch to train on, and scalars to log by name; called before every step."""

    def observe(self, loss: "Loss") -> None:
        """Process the loss of a step over all processes; called after every step."""

    def evaluate(self, precision: str, /) -> Result:
        """Evaluate the val split with the model's current weights; every process calls this.

        precision: numeric precision of decoding, one of `devices.PRECISIONS`; ignored by the tasks
        that do not decode.
        """

    def show(
        self,
        result: Any,
        epoch: int,
        log_image: "Callable[[str, Image.Image], None] | None",
        /,
    ) -> None:
        """Print and draw samples of an epoch, counted from 1.

        log_image(name, image): logs an image to the trackers; None without trackers.
        """

    def signature(self, scores: Mapping[str, float]) -> str:
        """Return a description, for the checkpoint's config, of how these scores were computed."""

    def save_text_model(self, directory: Path) -> None:
        """Write the files of the text model, such as the vocabulary, to a checkpoint."""

    def conclude(self, result: Any, /) -> list[str]:
        """Draw figures of the best checkpoint's result; return lines to print, such as paths."""

    def next_commands(self) -> list[str]:
        """Return suggested next commands, as typed on the command line."""


Default = int | float | str | tuple[str, ...]  # value of an option


@dataclass(frozen=True)
class Task:
    """A system that can be trained.

    name: value of --system, of "task" in checkpoints, and of the task's option table.
    title: what a model of the task does, as a noun phrase.
    model_options: class of the options that a checkpoint needs to rebuild the model.
    options: class of the task's other options.
    architecture: names of the model options that determine the names and shapes of the weights.
    scores: names of the validation scores that can be watched, the default first.
    unit: plural noun for what `Loss.count` counts, such as "words".
    negligible: watched scores up to this value count as ties; see `training.loop.fit`.
    defaults: default values of options that differ from those in the option groups.
    small_cnn_defaults: default values that override `defaults` if the encoder is small_cnn.
    recipes: values that override all of these defaults, by the value of the task's option `recipe`.
    hidden: names of shared options that have no effect on the task.
    evaluation_flags: names of the evaluation options that apply to this task but not to all tasks.

    model_name(options): the name of the model, from which the name of a run is derived.
    idle_options(options): the names of options that have no effect in combination with the others,
    each with the reason, such as "needs --attention".
    check_inputs(options): raises InputError for missing files and programs, before data is read.
    stored(options): sections of the checkpoint's config that contain the task's options.
    build(inputs): builds the job of a run.
    load(checkpoint, device): the public object that uses the checkpoint, such as a Captioner.
    evaluate(checkpoints, request): evaluates checkpoints on a split, and prints and writes the
    results.
    """

    name: str
    title: str
    model_options: type[Options]
    options: type[Options]
    architecture: tuple[str, ...]
    scores: tuple[str, ...]
    unit: str
    model_name: Callable[[OptionGroups], str]
    idle_options: Callable[[OptionGroups], dict[str, str]]
    check_inputs: Callable[[OptionGroups], None]
    stored: Callable[[OptionGroups], dict[str, Any]]
    build: Callable[[JobInputs], Job]
    load: "Callable[[Checkpoint, str | None], Any]"
    evaluate: "Callable[[Sequence[Checkpoint], EvaluationRequest], None]"
    negligible: float = 0.0
    defaults: Mapping[str, Default] = field(default_factory=dict)
    small_cnn_defaults: Mapping[str, Default] = field(default_factory=dict)
    recipes: Mapping[str, Mapping[str, Default]] = field(default_factory=dict)
    hidden: frozenset[str] = frozenset()
    evaluation_flags: frozenset[str] = frozenset()

    def watched_score(self, watch: str | None) -> str:
        """Return the score named `watch`, ignoring case; None selects the default."""
        names = {name.lower(): name for name in self.scores}
        return self.scores[0] if watch is None else names[watch.lower()]
