"""The union type of all linking models."""

from .clip import ClipEmbedding
from .joint import JointEmbedding
from .linear import LinearMap
from .mcnn import MultimodalCNN
from .regression import TextRegression
from .spatial import SpatialEmbedding

LinkingModel = (
    LinearMap | JointEmbedding | TextRegression | SpatialEmbedding | MultimodalCNN | ClipEmbedding
)
