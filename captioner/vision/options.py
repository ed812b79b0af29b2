"""Encoder options."""

from dataclasses import dataclass

from ..options import Options, check_at_least, option

SMALL_CNN = "small_cnn"
TIMM = "timm:"  # the names of timm's networks begin with this
# Suffixes of files written by torch.save, and by safetensors.
WEIGHTS_FILES = (".pth", ".pt", ".bin", ".tar", ".ckpt", ".safetensors")


@dataclass(frozen=True)
class EncoderOptions(Options):
    """Options of the encoder: the network, its weights, the stages to train, and the image size."""

    encoder: str = option(SMALL_CNN, "small_cnn, a torchvision CNN, or timm:NAME")
    encoder_weights: str | None = option(
        None,
        "name of published weights, a .pth or .safetensors file, a run, or a model of the package",
    )
    fine_tune_encoder: int | None = option(
        None, "first stage to train, 0 to 4 [none; untrained small_cnn: 0]"
    )
    image_size: int = option(224, "side length of resized images in pixels")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 32, "image_size")

    @property
    def trains(self) -> bool:
        """Whether any stage is trained: `fine_tune_encoder` is set, or small_cnn has no weights."""
        from_scratch = self.encoder == SMALL_CNN and self.encoder_weights is None
        return self.fine_tune_encoder is not None or from_scratch
