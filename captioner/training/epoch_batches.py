"""The batches of each epoch of a training run."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

from torch import Tensor

from .. import distributed
from ..data.batches import Batch, encode_captions, epoch_order, make_batch
from ..metrics.cider_d import CiderD
from ..models.captioning.distillation import (
    SoftTargets,
    add_soft_targets,
    compute_soft_targets,
)
from ..models.captioning.scst import add_rollouts
from ..prefetch import load_ahead
from ..text.collate import pad_captions
from .setup import TrainingSetup

Captions = list[list[list[int]]]  # for each image, its captions as tokens, longest first


class EpochBatches:
    """The training batches; call an instance with an epoch and the number of its first batch.

    With a teacher, the batches include its soft targets, which are computed once, at construction.
    Under torchrun, each process loads its share of every batch.

    steps: the number of batches per epoch.
    """

    def __init__(self, setup: TrainingSetup) -> None:
        self._options = setup.config.training
        self._workers = setup.config.data.workers
        self._pin = setup.device.type == "cuda"
        self._images = setup.training.images
        self._ids = [example.id for example in setup.training.examples]
        self._captions = encode_captions(setup.training.examples, setup.vocabulary)
        self.steps = len(self._order(0))
        self._add_rollouts = _rollouts(setup, self._captions)
        self._soft_targets = _soft_targets(setup, self._captions)

    def __call__(self, epoch: int, first: int) -> Iterator[Batch]:
        """Yield the epoch's batches from number `first`; epochs and batches are counted from 0."""
        rank, world = distributed.rank(), distributed.world_size()
        shares = [batch[rank::world] for batch in self._order(epoch)[first:]]
        loaded = load_ahead(self._load, shares, self._workers, pin=self._pin)
        for step, batch in enumerate(loaded, start=epoch * self.steps + first):
            yield replace(batch, sampling_prob=self._sampling_prob(step))

    def prepare(self, batch: Batch) -> tuple[Batch, dict[str, Tensor]]:
        """In self-critical training, add captions sampled from the current model.

        Returns the batch and, if captions were added, their mean reward.
        """
        if self._add_rollouts is None:
            return batch, {}
        batch, reward = self._add_rollouts(batch)
        return batch, {"reward": reward}

    def _order(self, epoch: int) -> list[list[int]]:
        options, images = self._options, self._images
        return epoch_order(
            self._captions,
            options.batch_size,
            options.seed,
            epoch,
            distributed.world_size(),
            images.groups,
            images.window,
        )

    def _sampling_prob(self, step: int) -> float:
        """Return the scheduled-sampling probability, which rises linearly from 0 over all steps."""
        share = step / max(1, self._options.epochs * self.steps - 1)
        return share * self._options.scheduled_sampling

    def _load(self, indices: Sequence[int]) -> Batch:
        tokens = pad_captions([self._captions[i] for i in indices])
        batch = make_batch(self._images, indices, [self._ids[i] for i in indices], tokens)
        if self._soft_targets is None:
            return batch
        return add_soft_targets(batch, [self._soft_targets[i] for i in indices])


def _rollouts(
    setup: TrainingSetup, captions: Captions
) -> Callable[[Batch], tuple[Batch, Tensor]] | None:
    """Return a function that adds sampled captions, or None if training is not self-critical."""
    options = setup.config.training
    if not options.self_critical:
        return None
    return partial(
        add_rollouts,
        model=setup.model,
        reward=CiderD.of(captions, len(setup.vocabulary)).to(setup.device).score,
        share=options.cross_entropy_share,
        precision=options.precision,
    )


def _soft_targets(setup: TrainingSetup, captions: Captions) -> list[SoftTargets] | None:
    """Compute the teacher's soft targets for the training captions; return None without one."""
    if setup.teacher is None:
        return None
    precision, workers = setup.config.training.precision, setup.config.data.workers
    images = setup.training.images
    return compute_soft_targets(setup.teacher, images, captions, precision, workers)
