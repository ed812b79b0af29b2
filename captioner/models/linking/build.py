"""The union type of all linking models."""

from .joint import JointEmbedding
from .linear import LinearMap
from .regression import TextRegression

LinkingModel = LinearMap | JointEmbedding | TextRegression
