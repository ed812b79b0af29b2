"""The typed configuration of a training run.

Command lines are parsed in the `cli` package.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..models.captioning.options import ModelOptions
from ..option_files import parse_options, read_toml
from ..options import Options, did_you_mean, flag_of, from_named, option_names
from ..tasks.captioning.options import CaptioningOptions
from ..tasks.captioning.task import CAPTIONING
from ..tasks.options import DataOptions, OptionGroups, RunOptions, TrainingOptions
from ..tasks.systems import task_named, task_of
from ..tasks.task import Default, Task
from ..vision.options import SMALL_CNN, TIMM, WEIGHTS_FILES, EncoderOptions
from .stored_options import inherited_image_size, inherited_options, read_stored_options

__all__ = [
    "CaptioningOptions",
    "DataOptions",
    "EncoderOptions",
    "ModelOptions",
    "RunOptions",
    "TrainConfig",
    "TrainingOptions",
]

SMALL_CNN_IMAGE_SIZE = 128  # the default with the encoder small_cnn


def option_groups(task: Task) -> dict[str, type[Options]]:
    """Return the classes of a task's options, by group name."""
    return {
        "data": DataOptions,
        "encoder": EncoderOptions,
        "model": task.model_options,
        task.name: task.options,
        "training": TrainingOptions,
        "run": RunOptions,
    }


def defaults_of(task: Task, encoder: str, recipe: str | None = None) -> dict[str, Default]:
    """Return the default values of a task's options that differ from those in the option groups.

    encoder: value of --encoder. recipe: value of the task's option `recipe`, if it has one.
    """
    defaults: dict[str, Default] = {"watch": task.scores[0].lower(), **task.defaults}
    if encoder.startswith(TIMM):
        from ..vision.timm_backbones import timm_transform

        defaults["image_size"] = timm_transform(encoder).size
    if encoder == SMALL_CNN:
        defaults |= {"image_size": SMALL_CNN_IMAGE_SIZE, **task.small_cnn_defaults}
    if recipe is not None:
        defaults |= task.recipes[recipe]
    return defaults


@dataclass(frozen=True)
class TrainConfig(OptionGroups):
    """The complete configuration of one training run, in groups of options.

    model: options of the model; their class determines the task, and `ModelOptions` means
    captioning. task: the task's other options; None selects their defaults. Options that were not
    passed to their group get the values of `defaults_of`, which depend on the encoder and the
    recipe. Raises InputError for contradictory options.
    """

    data: DataOptions = DataOptions()
    encoder: EncoderOptions = EncoderOptions()
    model: Options = ModelOptions()
    task: Options = None  # type: ignore[assignment]  # replaced by __post_init__
    training: TrainingOptions = TrainingOptions()
    run: RunOptions = RunOptions()

    @property
    def system(self) -> Task:
        """The task that the model options belong to."""
        return task_of(self.model)

    def __post_init__(self) -> None:
        task = self.system
        if self.task is None:
            object.__setattr__(self, "task", task.options())
        if not isinstance(self.task, task.options):
            raise InputError(
                f"task must be {task.options.__name__}, because model is "
                f"{type(self.model).__name__}, got {type(self.task).__name__}; omit it to use the "
                "defaults"
            )
        defaults = defaults_of(task, self.encoder.encoder, recipe_of(self.task))
        for name in ("encoder", "model", "task", "training"):
            object.__setattr__(self, name, _with_defaults(getattr(self, name), defaults))
        object.__setattr__(self, "training", _with_known_score(self.training, task))
        check_combination(self, _changed_options(self))

    @classmethod
    def from_options(cls, system: str = CAPTIONING.name, **options: Any) -> "TrainConfig":
        """Build a config from options of any group, such as `attention=True, epochs=3`.

        system: the name of the task. With `start_from`, options that must be those of that run have
        its values unless they are passed; with `encoder_weights` of a run, so has `image_size`.
        Raises InputError for an unknown task or option, an invalid value, or an option that has no
        effect in combination with the others, even if its value is the default.
        """
        return cls._build(task_named(system), options, options)

    @classmethod
    def from_file(
        cls, path: Path | str, system: str | None = None, **options: Any
    ) -> "TrainConfig":
        """Build a config from a TOML file or an earlier run; `options` override its values.

        path: a TOML file whose keys are names of flags, or a run, a checkpoint or its config.json.
        The training of an earlier run is repeated as a new run; its stored options are dropped if,
        in combination with `options`, they have no effect, do not fit, or are set by a recipe that
        `options` select. Paths in a TOML file are relative to the working directory. Raises
        InputError in the same cases as `from_options`, and if the file cannot be read.
        """
        path = Path(path)
        if path.suffix.lower() == ".toml":
            content = read_toml(path)
            in_file = content.pop("system", CAPTIONING.name)
            task = task_named(system or in_file)
            options = parse_options(content, path, option_groups(task), options)
            return cls._build(task, options, options)
        if path.is_file() and path.name != "config.json":
            raise InputError(
                f"config must be a .toml file, a run, a checkpoint or its config.json, got {path}"
            )
        task, stored = read_stored_options(path, option_groups)
        if system not in (None, task.name):
            raise InputError(
                f"{path} is a {task.name!r} run; pass --system {task.name} or omit --system"
            )
        if "data" in options:  # the stored format belongs to the stored data
            stored.pop("format", None)
        if not _weights_may_fit(stored, options):
            stored.pop("encoder_weights")
        if recipe := options.get("recipe"):
            stored = {k: v for k, v in stored.items() if k not in task.recipes.get(recipe, {})}
        idle = _idle_options(OptionGroups(**_build_groups(task, stored | options)))
        stored = {name: value for name, value in stored.items() if name not in idle}
        return cls._build(task, stored | options, options)

    @classmethod
    def _build(cls, task: Task, values: Mapping[str, Any], given: Collection[str]) -> "TrainConfig":
        """Build the config from these values, `inherited_options` and `inherited_image_size`.

        Raises InputError for an unknown option, and for one in `given` that has no effect.
        """
        if weights := values.get("encoder_weights"):
            values = {**inherited_image_size(Path(weights)), **values}
        if source := values.get("start_from"):
            values = {**inherited_options(Path(source), task), **values}
        groups = option_groups(task)
        known = {name for group in groups.values() for name in option_names(group)}
        if unknown := sorted(values.keys() - known):
            system = "" if task is CAPTIONING else f" for --system {task.name}"
            raise InputError(
                f"unknown training option {', '.join(map(repr, unknown))}{system}; see captioner "
                f"train --help{did_you_mean(unknown[0], known)}"
            )
        config = cls(**_build_groups(task, values))
        check_combination(config, given)
        return config


def _build_groups(task: Task, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the groups of a `TrainConfig` by field, each built from its options in `values`."""
    built = {name: from_named(group, values) for name, group in option_groups(task).items()}
    return {("task" if name == task.name else name): group for name, group in built.items()}


def recipe_of(task_options: Options) -> str | None:
    """Return the recipe that a task's options select; None if the task has no recipes."""
    return getattr(task_options, "recipe", None)


def _weights_may_fit(stored: Mapping[str, Any], options: Mapping[str, Any]) -> bool:
    """Return whether the stored weights may fit the encoder that `options` select.

    Torchvision CNNs may share names of published weights; a file of weights fits one encoder only.
    """
    weights, before = stored.get("encoder_weights"), stored.get("encoder")
    encoder = options.get("encoder", before)
    if weights is None or encoder == before:
        return True
    is_local = Path(weights).suffix in WEIGHTS_FILES or Path(weights).is_dir()
    return encoder != SMALL_CNN and not is_local


def _with_known_score(training: TrainingOptions, task: Task) -> TrainingOptions:
    """Return the options with the watched score in lower case; None selects the task's first.

    Raises InputError for an unknown score.
    """
    names = [name.lower() for name in task.scores]
    watch = names[0] if training.watch is None else training.watch.lower()
    if watch not in names:
        raise InputError(f"watch must be one of {', '.join(names)}, got {training.watch!r}")
    return replace(training, watch=watch)


def _with_defaults(group: Any, defaults: Mapping[str, Default]) -> Any:
    """Return the group with these defaults for the options that were not passed to it."""
    absent = set(option_names(type(group))) - group.given
    return replace(group, **{name: value for name, value in defaults.items() if name in absent})


def _changed_options(config: TrainConfig) -> set[str]:
    """Return the names of the options that do not have a default value.

    The default of an option may be different with small_cnn and with other encoders; both count.
    """
    changed: set[str] = set()
    recipe = recipe_of(config.task)
    own = [defaults_of(config.system, encoder, recipe) for encoder in (SMALL_CNN, "")]
    for group in (getattr(config, field.name) for field in fields(config)):
        for field in fields(group):
            defaults = [field.default, *(each.get(field.name, field.default) for each in own)]
            if getattr(group, field.name) not in defaults:
                changed.add(field.name)
    return changed


def check_combination(config: TrainConfig, given: Collection[str]) -> None:
    """Raise InputError if an option in `given` has no effect in combination with the others."""
    for name, reason in _idle_options(config).items():
        if name in given:
            raise InputError(f"{flag_of(name)} {reason}")


def _idle_options(groups: OptionGroups) -> dict[str, str]:
    """Return the options that have no effect in combination with the others, and why."""
    encoder, starts = groups.encoder, groups.run.start_from is not None
    fine_tunes = encoder.fine_tune_encoder is not None
    trains_encoder = fine_tunes if starts else encoder.trains
    has_data = groups.data.data is not None
    conditions = {
        "encoder_weights": (
            not starts or encoder.encoder_weights is None,
            "cannot be combined with --start-from, which provides the encoder's weights",
        ),
        "format": (has_data, "needs --data"),
        "on_error": (has_data, "needs --data"),
        "max_skipped": (
            has_data and groups.data.on_error == "skip",
            "needs --data and --on-error skip",
        ),
        "encoder_learning_rate": (
            trains_encoder,
            "needs a trained encoder; pass --fine-tune-encoder",
        ),
    }
    idle = {name: reason for name, (met, reason) in conditions.items() if not met}
    return idle | task_of(groups.model).idle_options(groups)
