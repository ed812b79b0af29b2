"""The batches of each epoch of a captioning run."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

from torch import Tensor

from ... import distributed
from ...data.batches import Batch, encode_captions, epoch_order, make_batch
from ...devices import device_of
from ...metrics.cider_d import CiderD
from ...models.base import CaptionModel
from ...models.captioning.build import CaptioningModel
from ...models.captioning.distillation import (
    SoftTargets,
    add_soft_targets,
    compute_soft_targets,
)
from ...models.captioning.scst import add_rollouts
from ...prefetch import load_ahead
from ...text.collate import pad_captions
from ...text.vocabulary import Vocabulary
from ..encoding import SplitData
from ..options import TrainingOptions
from .options import CaptioningOptions


class EpochBatches:
    """The training batches; call an instance with an epoch and the number of the first batch.

    With a teacher, the batches include its soft targets, which are computed once, at construction.
    Under torchrun, each process loads its share of every batch.

    steps: the number of batches per epoch.
    """

    def __init__(
        self,
        training: TrainingOptions,
        options: CaptioningOptions,
        split: SplitData,
        model: CaptioningModel,
        vocabulary: Vocabulary,
        teacher: CaptionModel | None,
        workers: int,
    ) -> None:
        self._training, self._options, self._workers = training, options, workers
        self._pin = device_of(model).type == "cuda"
        self._images = split.images
        self._ids = [example.id for example in split.examples]
        self._captions = captions = encode_captions(split.examples, vocabulary)
        self.steps = len(self._order(0))
        self._add_rollouts: Callable[[Batch], tuple[Batch, Tensor]] | None = None
        if options.self_critical:
            self._add_rollouts = partial(
                add_rollouts,
                model=model,
                reward=CiderD.of(captions, len(vocabulary)).to(device_of(model)).score,
                share=options.cross_entropy_share,
                precision=training.precision,
            )
        self._soft_targets: list[SoftTargets] | None = None
        if teacher is not None:
            self._soft_targets = compute_soft_targets(
                teacher, self._images, captions, training.precision, workers
            )

    def __call__(self, epoch: int, first: int) -> Iterator[Batch]:
        """Yield an epoch's batches, starting with batch `first`; both numbers start at 0."""
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
        options, images = self._training, self._images
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
        """Return the scheduled-sampling probability of a step, counted from 0 over all epochs.

        It rises linearly from 0 to its final value.
        """
        share = step / max(1, self._training.epochs * self.steps - 1)
        return share * self._options.scheduled_sampling

    def _load(self, indices: Sequence[int]) -> Batch:
        tokens = pad_captions([self._captions[i] for i in indices])
        batch = make_batch(self._images, indices, [self._ids[i] for i in indices], tokens)
        if self._soft_targets is None:
            return batch
        return add_soft_targets(batch, [self._soft_targets[i] for i in indices])
