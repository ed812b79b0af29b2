"""The options of the linking models."""

from dataclasses import dataclass

from ...options import Options, check_at_least, option

SOLVERS = ("cca", "ranking")


@dataclass(frozen=True)
class LinearOptions(Options):
    """The solver for the two linear maps, and the size of the shared space."""

    solver: str = option("cca", "cca: closed form; ranking: ranking loss", choices=SOLVERS)
    dimensions: int = option(300, "maximum number of dimensions of the shared space")
    ridge: float = option(1.0, "cca: ridge on both covariances, as a multiple of the mean variance")
    correlation_power: float = option(
        1.0, "cca: exponent of the correlation that scales each dimension"
    )
    margin: float = option(0.2, "ranking: cosine margin between correct and wrong pairs")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 1, "dimensions")
        check_at_least(self, 0, "ridge", "correlation_power", "margin")
