"""The linking models, as the classes that use any of them see them."""

from .joint import JointEmbedding
from .linear import LinearMap

LinkingModel = LinearMap | JointEmbedding
