"""All tasks, and functions that find them by name, checkpoint or model options."""

from typing import TYPE_CHECKING

from ..errors import InputError
from ..models.linking.options import CLIP
from ..options import Options
from .captioning.task import CAPTIONING
from .linking.joint_task import JOINT
from .linking.linear_task import LINEAR
from .linking.mcnn_task import MCNN
from .linking.regression_task import REGRESSION
from .linking.spatial_task import SPATIAL
from .relation.task import RELATION
from .task import Task

if TYPE_CHECKING:
    from ..checkpoints.checkpoint import Checkpoint

TASKS = (CAPTIONING, LINEAR, JOINT, MCNN, REGRESSION, SPATIAL, RELATION)
# Names of the evaluation options that apply to some tasks only.
EVALUATION_FLAGS = frozenset().union(*(task.evaluation_flags for task in TASKS))


def task_named(name: str) -> Task:
    """Return the task called `name`; raise InputError for an unknown name."""
    for task in TASKS:
        if task.name == name:
            return task
    known = ", ".join(task.name for task in TASKS)
    raise InputError(f"system must be one of {known}, got {name!r}")


def task_of_checkpoint(checkpoint: "Checkpoint") -> Task:
    """Return the task that a checkpoint was trained for; raise InputError if it is unknown.

    A CLIP model, which captioner does not train, is evaluated like a joint embedding.
    """
    if checkpoint.task == CLIP:
        return JOINT  # the same evaluation
    for task in TASKS:
        if task.name == checkpoint.task:
            return task
    raise InputError(
        f"checkpoint {checkpoint.path} was trained for {checkpoint.task!r}, but this version of "
        f"captioner supports {', '.join(task.name for task in TASKS)}; update captioner"
    )


def task_of(model: Options) -> Task:
    """Return the task that these model options belong to; raise InputError if there is none."""
    for task in TASKS:
        if isinstance(model, task.model_options):
            return task
    *others, last = (task.model_options.__name__ for task in TASKS)
    raise InputError(
        f"model must be an instance of {', '.join(others)} or {last}, got {type(model).__name__}"
    )
