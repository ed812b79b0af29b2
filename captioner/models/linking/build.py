"""The union type of all linking models."""

from .joint import JointEmbedding
from .linear import LinearMap

LinkingModel = LinearMap | JointEmbedding
