"""Export of a model as three ONNX or torch.export programs.

    encoder   pixels (B, 3, S, S) -> features (B, D, h, w)
    start     features -> memory, rows (B, ...), and state, rows (B, 1, ...)
    step      tokens (B, K), state (B, K, ...), memory -> scores (B, K, V), state, attention

The programs run without captioner. They do not include the search: the caller chooses the words.
captioner.json describes the programs; in format 2, its keys are:

    format          2
    image           size S, mean, std, and the rules by which an image becomes pixels
    words, tokens   the word of each token; the tokens PAD, START, END, UNKNOWN
    never           tokens to exclude from every caption
    decoding        the library's default options for beam search
    has_attention   whether `step` returns attention maps (format 1: attends)
    offset          distance of the map values from the centres of their cells, in cells
    programs        file, and names, types and shapes of inputs and outputs, in order, for each
                    program; the dynamic sizes are "images" (format 1: pictures) and "hypotheses"

In format 1, `image` was called picture. Shapes: B images, K hypotheses per image, S image size,
D feature channels, (h, w) grid, V vocabulary.
"""

import copy
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from ..atomic_io import atomic_directory, check_absent
from ..captioner import Captioner
from ..data.images import Transform
from ..decoding.options import DecodingOptions
from ..errors import InputError
from ..models.base import CaptionModel
from ..text.vocabulary import PAD, SPECIALS, START, UNKNOWN, Vocabulary
from ..vision.encoders import Encoder

DESCRIPTION = "captioner.json"
FORMAT = 2  # of captioner.json
Axes = tuple[str, ...]  # names of the leading axes, which are dynamic
IMAGES: Axes = ("images",)
ROWS: Axes = ("images", "hypotheses")


@dataclass(frozen=True)
class Program:
    """A module to export, with its example inputs and the names of its outputs.

    inputs: {name: (example, dynamic axes)}, in the order of the module's arguments. outputs:
    {name: dynamic axes}, in the order of its results.
    """

    module: nn.Module
    inputs: Mapping[str, tuple[Tensor, Axes]]
    outputs: Mapping[str, Axes]


def export_onnx(captioner: Captioner, directory: Path) -> None:
    """Atomically write encoder.onnx, start.onnx, step.onnx and captioner.json to a new directory.

    Raises InputError if the extra `onnx` is not installed, if `directory` exists and is not empty,
    or if it cannot be written.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise InputError(f"--onnx needs {error.name}; run pip install 'captioner[onnx]'") from error
    _export(captioner, directory, "onnx", _write_onnx)


def export_torch(captioner: Captioner, directory: Path) -> None:
    """Atomically write encoder.pt2, start.pt2, step.pt2 and captioner.json to a new directory.

    `torch.export.load` loads the programs. They take and return tensors on the CPU, in the order
    listed in captioner.json. Call them with `program.module(check_guards=False)`: a guard left by
    tracing requires more than one hypothesis, although the program does not. Raises InputError if
    `directory` exists and is not empty, or if it cannot be written.
    """
    _export(captioner, directory, "pt2", _write_torch)


Writer = Callable[[Program, ExportedProgram, Path], None]


def _export(captioner: Captioner, directory: Path, extension: str, write: Writer) -> None:
    check_absent(directory)
    descriptions: dict[str, Any] = {}
    try:
        with atomic_directory(directory) as target, torch.no_grad():
            for name, program in _programs(captioner).items():
                file = f"{name}.{extension}"
                write(program, _trace(program), target / file)
                descriptions[name] = {"file": file, **_describe(program)}
            description = {**_description(captioner), "programs": descriptions}
            text = json.dumps(description, ensure_ascii=False, indent=1)
            (target / DESCRIPTION).write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"{directory} cannot be written: {error}; choose another directory"
        ) from error


# ---- the programs -------------------------------------------------------------------------------


def _programs(captioner: Captioner) -> dict[str, Program]:
    """Build the programs, by name, with example inputs for two images with three hypotheses each.

    The tracer treats axes of length 0 or 1 as constant and axes of equal length as the same axis.
    """
    model = copy.deepcopy(captioner.model).cpu().eval()
    encoder = _Encode(model)
    for module in model.modules():
        module._modules.pop("encoder", None)  # otherwise each program would contain its weights
    side = captioner.transform.size
    pixels = torch.zeros(2, 3, side, side)
    features = encoder(pixels)
    # With expected_steps=0, `start` does not precompute values that depend only on the word, which
    # are not worth storing for each image.
    memory, state = model.start(features, expected_steps=0)
    rows = {name: (value[:, None].repeat(1, 3, 1), ROWS) for name, value in state.items()}
    attention = {"attention": ROWS} if model.has_attention else {}
    return {
        "encoder": Program(encoder, {"pixels": (pixels, IMAGES)}, {"features": IMAGES}),
        "start": Program(
            _Start(model),
            {"features": (features, IMAGES)},
            dict.fromkeys((*memory, *state), IMAGES),
        ),
        "step": Program(
            _Step(model, tuple(state), tuple(memory)),
            {"tokens": (torch.full((2, 3), START), ROWS)}
            | rows
            | {name: (value, IMAGES) for name, value in memory.items()},
            {"scores": ROWS} | {f"next_{name}": ROWS for name in state} | attention,
        ),
    }


class _Encode(nn.Module):
    """The encoder for inference; for an ensemble, all encoders with concatenated maps."""

    def __init__(self, model: CaptionModel) -> None:
        super().__init__()
        encoders = [model.encoder] if isinstance(model.encoder, Encoder) else model.encoder
        self.encoders = nn.ModuleList(
            cast(Encoder, encoder).inference_layers().to(memory_format=torch.contiguous_format)
            for encoder in encoders
        )

    def forward(self, pixels: Tensor) -> Tensor:
        return torch.cat([encoder(pixels) for encoder in self.encoders], dim=1)


class _Start(nn.Module):
    def __init__(self, model: CaptionModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:
        memory, state = self.model.start(features, expected_steps=0)
        return (*memory.values(), *(value[:, None] for value in state.values()))


class _Step(nn.Module):
    def __init__(self, model: CaptionModel, state: Sequence[str], memory: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.state = state
        self.memory = memory

    def forward(self, tokens: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Run one step; `inputs` are the state tensors, then the memory tensors."""
        rows = (value.flatten(0, 1) for value in inputs[: len(self.state)])
        state = dict(zip(self.state, rows, strict=True))
        memory = dict(zip(self.memory, inputs[len(self.state) :], strict=True))
        scores, state, attention = self.model.step(tokens.flatten(), state, memory)
        outputs = [scores, *(state[name] for name in self.state)]
        outputs += [] if attention is None else [attention]
        return tuple(value.unflatten(0, tokens.shape) for value in outputs)  # type: ignore[no-untyped-call]  # torch 2.15


# ---- files --------------------------------------------------------------------------------------


def _axes(program: Program) -> tuple[Any, ...]:
    """Return the dynamic shapes of the inputs, nested like the arguments of `forward`."""
    names = {name: Dim(name) for name in ROWS}
    first, *others = (
        {i: names[name] for i, name in enumerate(axes)} for _, axes in program.inputs.values()
    )
    return (first, tuple(others)) if others else (first,)


def _trace(program: Program) -> ExportedProgram:
    examples = tuple(value for value, _ in program.inputs.values())
    traced = torch.export.export(program.module, examples, dynamic_shapes=_axes(program))
    _remove_unused(traced)
    for module in traced.graph_module.modules():
        graph = getattr(module, "graph", None)
        for node in graph.nodes if graph else ():
            node.meta.pop("stack_trace", None)  # names the files of this machine
    return traced


def _remove_unused(traced: ExportedProgram) -> None:
    """Remove the weights and buffers that the program does not use."""
    specs, graph = traced.graph_signature.input_specs, traced.graph
    nodes = {node.name: node for node in graph.nodes}
    for spec in list(specs):
        node = nodes[spec.arg.name]
        if spec.target is not None and not node.users:
            graph.erase_node(node)
            specs.remove(spec)
            traced.state_dict.pop(spec.target, None)
            traced.constants.pop(spec.target, None)
    traced.graph_module.recompile()


def _write_torch(_: Program, traced: ExportedProgram, path: Path) -> None:
    torch.export.save(traced, path)


def _write_onnx(program: Program, traced: ExportedProgram, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "# The axis name")  # inputs share axes on purpose
        torch.onnx.export(
            traced,
            (),
            path,
            dynamo=True,
            input_names=list(program.inputs),
            output_names=list(program.outputs),
            dynamic_shapes=_axes(program),  # names the axes in the file
            external_data=False,  # the default writes the weights to a second file
            verbose=False,
        )


def _describe(program: Program) -> dict[str, Any]:
    """Describe the names, types and shapes of the inputs and outputs, in order."""
    examples = [value for value, _ in program.inputs.values()]
    results = program.module(*examples)
    results = [results] if isinstance(results, Tensor) else results

    def describe(name: str, value: Tensor, axes: Axes) -> dict[str, Any]:
        shape = [*axes, *value.shape[len(axes) :]]
        return {"name": name, "type": str(value.dtype).removeprefix("torch."), "shape": shape}

    return {
        "inputs": [describe(name, value, axes) for name, (value, axes) in program.inputs.items()],
        "outputs": [
            describe(name, value, axes)
            for (name, axes), value in zip(program.outputs.items(), results, strict=True)
        ],
    }


def _description(captioner: Captioner) -> dict[str, Any]:
    """Return the contents of captioner.json except `programs`."""
    options = DecodingOptions()
    return {
        "format": FORMAT,
        "image": image_rules(captioner.transform),
        "words": [*SPECIALS, *captioner.vocabulary.words],
        "tokens": {name: getattr(Vocabulary, name) for name in ("PAD", "START", "END", "UNKNOWN")},
        "never": [PAD, START, UNKNOWN],
        "decoding": {
            "beam_size": options.beams,
            "length_penalty": options.penalty,
            "max_length": options.max_length,
            "min_length": options.min_length,
        },
        "has_attention": captioner.model.has_attention,
        "offset": captioner.model.encoder.offset,
    }


def image_rules(transform: Transform) -> dict[str, Any]:
    """Return the transform and, in order, the rules by which an image becomes pixels."""
    return {
        **transform.to_dict(),
        "orientation": (
            "turn the image upright according to its orientation, 1 to 8, in EXIF or, if EXIF has "
            "none, in XMP; use the first frame of an animation"
        ),
        "sixteen_bit": (
            "16-bit grey values v become floor((v + 128) / 257); for 16-bit colours, and for "
            "16-bit grey with alpha, take the high byte"
        ),
        "transparency": (
            "composite over white: c * a / 255 + 255 - a, rounded; palette entries and PNG colours "
            "can be transparent, too"
        ),
        "mode": (
            "convert to 8-bit RGB without colour management; CMYK values, inverted first in a JPEG "
            "with an Adobe marker, become (255 - c) * (255 - k) / 255"
        ),
        "resize": (
            f"resize to size x size, ignoring the aspect ratio, by Pillow's filter "
            f"{transform.interpolation.upper()}: horizontally, then vertically"
            if transform.interpolation != "bicubic"
            else "resize to size x size, ignoring the aspect ratio, by cubic convolution with "
            "a = -0.5 at pixel centres; when shrinking, widen the kernel by the scale; divide the "
            "weights inside the image by their sum; filter horizontally, then vertically, rounding "
            "and clipping to 8 bits after each; this is Pillow's BICUBIC in two calls"
        ),
        "values": "(v / 255 - mean) / std for each channel",
    }
