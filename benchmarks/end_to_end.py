"""Captioning a directory of JPEG files: python -m benchmarks.end_to_end."""

import tempfile
from functools import partial
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import measure, textbook
from benchmarks.setting import SIZES, image_operations, vary, word_operations
from benchmarks.synthetic_images import draw_images
from captioner.captioner import Captioner
from captioner.data.images import Transform, load_image
from captioner.decoding.decode import decode
from captioner.decoding.options import DecodingOptions
from captioner.devices import products_in
from captioner.models.captioning.build import build_model
from captioner.models.captioning.options import ModelOptions
from captioner.options import to_dict
from captioner.products import decoding_in
from captioner.text.vocabulary import Vocabulary
from captioner.vision.encoders import Encoder, build_encoder

ENCODERS = ("mobilenet_v2", "resnet50", "resnet101")
BATCH = 32
LENGTHS = (12, 20)  # words: a typical Flickr8k or COCO caption and its end token; the targets


def main() -> None:
    argv = measure.arguments(__doc__)
    device = measure.device_of(argv)
    count = 2 * BATCH if device.type == "cpu" else 64 * BATCH
    with tempfile.TemporaryDirectory() as directory:
        paths = draw_images(Path(directory), count)
        size = sum(path.stat().st_size for path in paths) / count / 1000
        print(f"### A directory of {count} JPEG files of 640 x 480 pixels, {size:.0f} kB each\n")
        for name in ENCODERS[: 1 if argv.quick else None]:
            compare(name, paths, device, argv.rounds)


def captioner_with(name: str, precision: str, device: torch.device) -> Captioner:
    torch.manual_seed(0)
    encoder = build_encoder(name)
    size = SIZES.hidden
    options = ModelOptions(
        attention=True,
        embedding_size=size,
        hidden_size=size,
        annotation_size=size,
        attention_size=size,
    )
    words = [f"word{i}" for i in range(SIZES.vocabulary - 4)]
    model = build_model(encoder, SIZES.vocabulary, options).to(device)
    return Captioner(model, Vocabulary(words), Transform(224), precision)


def textbook_directory(
    captioner: Captioner, decoder: textbook.Decoder, paths: list[Path], words: int
) -> None:
    """Caption image by image: open, encode with torchvision's model, search."""
    encoder = captioner.model.encoder
    assert isinstance(encoder, Encoder)
    for path in paths:
        image = captioner.transform(load_image(path))[None].to(captioner.device)
        with torch.no_grad():
            maps = encoder.layers(image)
        rows = maps[0].flatten(1).T.contiguous()
        textbook.beam_search(decoder, rows, 3, words, words)


def operations(captioner: Captioner, words: int) -> int:
    """Count the operations per image from pixels to a beam of 3, by the plain equations."""
    encoder = captioner.model.encoder
    assert isinstance(encoder, Encoder)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        encoder.layers(torch.rand(1, 3, 224, 224, device=captioner.device))
    sizes = vary(SIZES, channels=encoder.channels)
    searching = image_operations(sizes, True) + 3 * words * word_operations(sizes, True)
    return counter.get_total_flops() + searching


def works_of(captioner: Captioner, paths: list[Path]) -> dict[str, measure.Work]:
    """Return the cases: the encoder alone and, per caption length, search and full pipeline."""
    images = torch.rand(BATCH, 3, 224, 224, device=captioner.device)

    def encode() -> torch.Tensor:
        with torch.inference_mode(), products_in(captioner.precision, captioner.device):
            return captioner.model.encoder(images)

    maps = encode()

    def search(options: DecodingOptions) -> object:
        with decoding_in(captioner.precision, captioner.device):
            return decode(captioner.model, maps.float(), options)

    works: dict[str, measure.Work] = {"encoder alone": encode}
    for words in LENGTHS:
        options = DecodingOptions(min_length=words, max_length=words, beam_size=3)
        directory = partial(captioner.caption, paths, batch_size=BATCH, **to_dict(options))
        works[f"beam 3 alone, {words} words"] = partial(search, options)
        works[f"directory to captions, {words} words"] = directory
    return works


def compare(name: str, paths: list[Path], device: torch.device, rounds: int) -> None:
    cases: dict[str, measure.Work] = {}
    for precision in ("float32", "bfloat16"):
        works = works_of(captioner_with(name, precision, device), paths)
        cases |= {f"{precision}, {what}": work for what, work in works.items()}
    exact = captioner_with(name, "float32", device)
    decoder = textbook.with_weights_of(exact.model)
    for words in LENGTHS:
        cases[f"textbook, directory to captions, {words} words"] = partial(
            textbook_directory, exact, decoder, paths[:BATCH], words
        )
    products, size = measure.matrix_limits(device)
    times = measure.side_by_side({**cases, **products}, rounds, device)
    limit, _ = measure.limits_of(times, size)
    rows = []
    for case, taken in times.items():
        what, job, *length_of = case.split(", ")
        rate = (len(paths) if "directory" in case and what != "textbook" else BATCH) / taken
        row: list[object] = [f"{name}: {case}", rate]
        alone = times.get(f"{what}, encoder alone")
        row.append(measure.share(rate, BATCH / alone) if alone else "-")
        if job.startswith("directory"):
            plain = BATCH / times[f"textbook, {job}, {length_of[0]}"]
            done = rate * operations(exact, int(length_of[0].split()[0]))
            peak = measure.peak_memory(cases[case], device)
            row += [rate / plain, measure.share(done, limit), peak]
        else:
            row += ["-", "-", "-"]
        rows.append(row)
    head = ["", "images/s", "share of encoder alone", "over textbook"]
    print(measure.table([*head, "share of float32 matrix limit", "peak MB"], rows) + "\n")


if __name__ == "__main__":
    main()
