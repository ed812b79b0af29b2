"""Captioning a folder of JPEG files, from disk to text: python -m benchmarks.end_to_end."""

import tempfile
from pathlib import Path

import torch

from benchmarks import measure
from benchmarks.pictures import draw_pictures
from benchmarks.setting import SIZES
from captioner.captioner import Captioner
from captioner.captioning import ModelOptions, build_model
from captioner.decoding import decode
from captioner.devices import products_in
from captioner.encoders import build_encoder
from captioner.filters import DecodingOptions
from captioner.images import Transform
from captioner.text import Vocabulary

ENCODERS = ("mobilenet_v2", "resnet50", "resnet101")
BATCH = 32
LENGTHS = (12, 20)  # words: about a caption's of Flickr8k or COCO with its end, and the targets'


def main() -> None:
    argv = measure.arguments(__doc__)
    device = measure.device_of(argv)
    count = 2 * BATCH if device.type == "cpu" else 64 * BATCH
    with tempfile.TemporaryDirectory() as folder:
        paths = draw_pictures(Path(folder), count)
        size = sum(path.stat().st_size for path in paths) / count / 1000
        print(f"### A folder of {count} JPEG files of 640 x 480 pixels, {size:.0f} kB each\n")
        for name in ENCODERS[: 1 if argv.quick else None]:
            compare(name, paths, device, argv.rounds)


def captioner_with(name: str, precision: str, device: torch.device) -> Captioner:
    torch.manual_seed(0)
    encoder = build_encoder(name)
    sizes = {"embedding_size": SIZES.hidden, "hidden_size": SIZES.hidden}
    options = ModelOptions(attention=True, attention_size=SIZES.hidden, **sizes)
    words = [f"word{i}" for i in range(SIZES.vocabulary - 4)]
    model = build_model(encoder, SIZES.vocabulary, options).to(device)
    return Captioner(model, Vocabulary(words), Transform(224), precision)


def compare(name: str, paths: list[Path], device: torch.device, rounds: int) -> None:
    cases: dict[str, measure.Work] = {}
    for precision in ("float32", "bfloat16"):
        captioner = captioner_with(name, precision, device)
        images = torch.rand(BATCH, 3, 224, 224, device=device)

        def encode(c: Captioner = captioner, images: torch.Tensor = images) -> torch.Tensor:
            with torch.inference_mode(), products_in(c.precision, device):
                return c.model.encoder(images)

        maps = encode()
        cases[f"{precision}, encoder alone"] = encode
        for words in LENGTHS:
            length = {"min_length": words, "max_length": words, "beam_size": 3}
            options = DecodingOptions(min_length=words, max_length=words, beam_size=3)

            def search(
                c: Captioner = captioner,
                maps: torch.Tensor = maps,
                options: DecodingOptions = options,
            ) -> object:
                with products_in(c.precision, device):
                    return decode(c.model, maps, options)

            def folder(c: Captioner = captioner, length: dict[str, int] = length) -> object:
                return c.caption(paths, batch_size=BATCH, **length)

            cases[f"{precision}, beam 3 alone, {words} words"] = search
            cases[f"{precision}, folder to captions, {words} words"] = folder
    times = measure.side_by_side(cases, rounds, device)
    rows = []
    for case, taken in times.items():
        rate = (len(paths) if "folder" in case else BATCH) / taken
        alone = BATCH / times[f"{case.split(',')[0]}, encoder alone"]
        rows.append([f"{name}: {case}", rate, measure.share(rate, alone)])
    print(measure.table(["", "pictures/s", "share of encoder alone"], rows) + "\n")


if __name__ == "__main__":
    main()
