"""A model as three programs that need no captioner: ONNX's, or torch.export's; and what they need.

    encoder   pixels (B, 3, S, S) -> features (B, D, h, w)
    start     features -> memory, rows (B, ...), and state, rows (B, 1, ...)
    step      tokens (B, K), state (B, K, ...), memory -> scores (B, K, V), state, attention

There is no search here: whoever runs the programs chooses the words. Shapes: B images,
K hypotheses per image, S image side, D feature channels, h, w grid, V vocabulary.
"""

import copy
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from ..atomic_io import atomic_directory, check_absent
from ..captioner import Captioner
from ..decoding.options import DecodingOptions
from ..errors import InputError
from ..models.base import CaptionModel
from ..text.vocabulary import PAD, SPECIALS, START, UNKNOWN, Vocabulary
from ..vision.encoders import Encoder, fold_batch_norms

DESCRIPTION = "captioner.json"
FORMAT = 1  # of the description
Axes = tuple[str, ...]
IMAGES: Axes = ("images",)
ROWS: Axes = ("images", "hypotheses")  # the first axes, of any length


@dataclass(frozen=True)
class Part:
    """One of the programs: what goes in and comes out, in order; for each name its free axes.

    inputs hold example values as well.
    """

    module: nn.Module
    inputs: Mapping[str, tuple[Tensor, Axes]]
    outputs: Mapping[str, Axes]


def export_onnx(captioner: Captioner, directory: Path) -> None:
    """Write encoder.onnx, start.onnx, step.onnx and `captioner.json`, which describes them.

    All or nothing. Raises InputError where the extra `onnx` is missing, where `directory` holds
    something already, and where nothing can be written there.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"--onnx needs {error.name}; pip install 'captioner[onnx]' brings it"
        ) from error
    _export(captioner, directory, "onnx", _write_onnx)


def export_torch(captioner: Captioner, directory: Path) -> None:
    """The same as encoder.pt2, start.pt2 and step.pt2, which `torch.export.load` reads.

    They take and give tensors on the CPU, in the order that `captioner.json` tells. Called by
    `program.module(check_guards=False)`: a guard that the trace leaves wants more than one
    hypothesis, though the program does not.
    """
    _export(
        captioner, directory, "pt2", lambda part, program, path: torch.export.save(program, path)
    )


Writer = Callable[[Part, ExportedProgram, Path], None]


def _export(captioner: Captioner, directory: Path, ending: str, write: Writer) -> None:
    check_absent(directory)
    programs: dict[str, Any] = {}
    try:
        with atomic_directory(directory) as part_directory, torch.no_grad():
            for name, part in _parts(captioner).items():
                file = f"{name}.{ending}"
                program = _program(part)
                write(part, program, part_directory / file)
                programs[name] = {"file": file, **_describe(part)}
            told = {**_needed(captioner), "programs": programs}
            text = json.dumps(told, ensure_ascii=False, indent=1)
            (part_directory / DESCRIPTION).write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"{directory} cannot be written: {error}") from error


# ---- the programs -------------------------------------------------------------------------------


def _parts(captioner: Captioner) -> dict[str, Part]:
    """Each program with two images of three hypotheses as its example: sizes that are 0 or 1, or
    equal by chance, would be taken to be so always."""
    model = copy.deepcopy(captioner.model).cpu().eval()
    encoder = _Encode(model)
    for module in model.modules():
        module._modules.pop("encoder", None)  # else every program would hold its weights
    side = captioner.transform.size
    pixels = torch.zeros(2, 3, side, side)
    features = encoder(pixels)
    memory, state = model.start(
        features, expected_steps=0
    )  # 0: what the words alone decide stays out
    rows = {name: value[:, None].repeat(1, 3, 1) for name, value in state.items()}
    given = {name: (value, IMAGES) for name, value in memory.items()}
    after = {f"next_{name}": ROWS for name in state} | (
        {"attention": ROWS} if model.has_attention else {}
    )
    return {
        "encoder": Part(encoder, {"pixels": (pixels, IMAGES)}, {"features": IMAGES}),
        "start": Part(
            _Start(model),
            {"features": (features, IMAGES)},
            {name: IMAGES for name in (*memory, *state)},
        ),
        "step": Part(
            _Step(model, tuple(state), tuple(memory)),
            {"tokens": (torch.full((2, 3), START), ROWS)}
            | {name: (value, ROWS) for name, value in rows.items()}
            | given,
            {"scores": ROWS} | after,
        ),
    }


class _Encode(nn.Module):
    """The encoder without its batch norms; those of an ensemble give their maps side by side."""

    def __init__(self, model: CaptionModel) -> None:
        super().__init__()
        several = [model.encoder] if isinstance(model.encoder, Encoder) else model.encoder
        self.parts = nn.ModuleList(
            fold_batch_norms(cast(Encoder, each).layers).to(memory_format=torch.contiguous_format)
            for each in several
        )

    def forward(self, pixels: Tensor) -> Tensor:
        return torch.cat([part(pixels) for part in self.parts], dim=1)


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

    def forward(self, tokens: Tensor, *given: Tensor) -> tuple[Tensor, ...]:
        """given: state, then memory, by their order."""
        rows = (value.flatten(0, 1) for value in given[: len(self.state)])
        state = dict(zip(self.state, rows, strict=True))
        memory = dict(zip(self.memory, given[len(self.state) :], strict=True))
        scores, state, attention = self.model.step(tokens.flatten(), state, memory)
        found = [scores, *(state[name] for name in self.state)]
        found += [] if attention is None else [attention]
        return tuple(value.unflatten(0, tokens.shape) for value in found)


# ---- files --------------------------------------------------------------------------------------


def _axes(part: Part) -> tuple[Any, ...]:
    """The free axes of the inputs, nested as the arguments of the module's `forward` are."""
    names = {name: Dim(name) for name in ROWS}
    first, *others = (
        {i: names[name] for i, name in enumerate(axes)} for _, axes in part.inputs.values()
    )
    return (first, tuple(others)) if others else (first,)


def _program(part: Part) -> ExportedProgram:
    values = tuple(value for value, _ in part.inputs.values())
    return torch.export.export(part.module, values, dynamic_shapes=_axes(part))


def _write_onnx(part: Part, program: ExportedProgram, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "# The axis name")  # that inputs share an axis is meant
        torch.onnx.export(
            program,
            (),
            path,
            dynamo=True,
            input_names=list(part.inputs),
            output_names=list(part.outputs),
            dynamic_shapes=_axes(part),  # for their names
            external_data=False,
            verbose=False,
        )


def _describe(part: Part) -> dict[str, Any]:
    """Names, types and shapes of what goes in and comes out, in order."""
    values = [value for value, _ in part.inputs.values()]
    found = part.module(*values)
    found = [found] if isinstance(found, Tensor) else found

    def told(name: str, value: Tensor, axes: Axes) -> dict[str, Any]:
        shape = [*axes, *value.shape[len(axes) :]]
        return {"name": name, "type": str(value.dtype).removeprefix("torch."), "shape": shape}

    return {
        "inputs": [told(name, value, axes) for name, (value, axes) in part.inputs.items()],
        "outputs": [
            told(name, value, axes)
            for (name, axes), value in zip(part.outputs.items(), found, strict=True)
        ],
    }


def _needed(captioner: Captioner) -> dict[str, Any]:
    """What a program has to know to make pixels of an image and words of scores."""
    options = DecodingOptions()
    return {
        "format": FORMAT,
        "image": {
            **asdict(captioner.transform),
            "mode": "RGB",
            "resize": "bicubic, antialiased, the whole image squashed to size x size",
            "values": "(v / 255 - mean) / std for each channel",
        },
        "words": [*SPECIALS, *captioner.vocabulary.words],
        "tokens": {name: getattr(Vocabulary, name) for name in ("PAD", "START", "END", "UNKNOWN")},
        "never": [PAD, START, UNKNOWN],
        "decoding": {
            "beam_size": options.beams,
            "length_penalty": options.penalty,
            "max_length": options.max_length,
            "min_length": options.min_length,
        },
        "attends": captioner.model.has_attention,
        "offset": captioner.model.encoder.offset,
    }
