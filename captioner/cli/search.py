"""`captioner search`: find images or texts that match a query of words and images."""

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .. import console
from ..checkpoints.runs import CHECKPOINTS
from ..errors import InputError
from ..options import add_options, from_named, option_names
from ..retrieval.index_files import KINDS, is_index
from ..retrieval.painting import PRESETS, parse_layer
from ..retrieval.query import Query, parse
from ..retrieval.reranking import RerankOptions

if TYPE_CHECKING:
    from PIL import Image

    from ..index import Hit
    from ..reranker import Reranker
    from ..retrieval.query import Query

EXAMPLE = """captioner search photos.index 'dog + beach - ball' --html result.html
captioner search 'image:dog.jpg - grass + 2*snow' --top 20
captioner search photos.index -- '-dog + snow'
captioner search photos.index 'beach - dog' --paint=sky=top --paint=-dog=left
captioner search captions.index image:dog.jpg --rerank CAPTIONER"""
NOTE = (
    "A query adds and subtracts words, quoted phrases and images (image:PATH), optionally with "
    'weights: 2*snow - "a black dog". Write -- before a query that begins with a minus sign.'
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = f"{parser.prog} [INDEX] [QUERY] [option...]"
    parser.add_argument(
        "query",
        nargs="*",
        metavar="QUERY",
        help="query, such as 'dog + beach - ball', optionally preceded by the index to search [the "
        "last index written in this directory]",
    )
    parser.add_argument(
        "--paint",
        action="append",
        default=[],
        metavar="WORD=PLACE",
        help=f"spatial models: where a word should be ({', '.join(PRESETS)}) or, with -WORD, "
        "should not be; may be repeated, and combined with a query",
    )
    parser.add_argument(
        "--top", type=int, default=10, metavar="INT", help="number of results [%(default)s]"
    )
    parser.add_argument(
        "--checkpoint",
        type=Path,
        metavar="RUN",
        help="new location of the index's checkpoint, if it has moved",
    )
    parser.add_argument(
        "--approximate",
        action="store_true",
        help="search only the nearest clusters of rows; needs an index written with --approximate",
    )
    parser.add_argument("--json", action="store_true", help="print the result as a JSON object")
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="output HTML page with the results"
    )
    parser.add_argument(
        "--device", metavar="STR", help="cpu, cuda, cuda:N or mps [cuda if available]"
    )
    add_options(parser, RerankOptions, "re-ranking")
    parser.set_defaults(**dict.fromkeys(option_names(RerankOptions)))
    parser.add_argument(
        "--cache",
        type=Path,
        metavar="PATH",
        help=f"directory of stored features of the models that re-rank [{CHECKPOINTS / '.cache'}]",
    )


def run(arguments: argparse.Namespace) -> None:
    if len(arguments.query) > 2:
        raise InputError(
            f"expected an index and a query, got {len(arguments.query)} arguments; put the query "
            "in quotes, as in 'dog + beach'"
        )
    layers = [parse_layer(each) for each in arguments.paint]
    given, query = _split(arguments.query, painted=bool(layers))
    options = _read_options(arguments)
    from ..index import Index, find_last_index

    directory = Path(given[0]) if given else find_last_index(Path())
    if not given:
        console.note(f"index: {directory}, the last one written in this directory")
    index = Index.open(
        directory,
        arguments.checkpoint,
        device=arguments.device,
        approximate=arguments.approximate,
    )
    if query is None or layers:
        best = index.paint(layers, query, arguments.top)
    else:
        best = index.search(
            query,
            arguments.top,
            reranker=_load_reranker(options, arguments, index.kind),
            rerank_top=options.rerank_top,
        )
    hits = [hit._replace(item=_shown(hit.item)) for hit in best]
    terms = [] if query is None else [str(query)]
    described = " ".join([*terms, *(f"[{text}]" for text in arguments.paint)])
    if arguments.json:
        key = KINDS[index.kind]
        found = [{key: hit.item, "score": round(hit.score, 4)} for hit in hits]
        print(json.dumps({"query": described, "index": str(directory), "hits": found}))
    else:
        print(f"query: {described}")
        for hit in hits:
            print(f"{hit.score:.3f}\t{hit.item.encode('utf-8', 'replace').decode()}")
    if arguments.html:
        models = f", re-ranked by {' + '.join(map(str, options.rerank))}" if options.rerank else ""
        count = f"{len(hits)} of {len(index):,} {index.kind}"
        note = f"The best {count} in {directory}, with their scores{models}."
        _write_page(arguments.html, described, query, note, hits, index.kind)
        console.note(f"page: {arguments.html}")


def _split(words: Sequence[str], *, painted: bool) -> "tuple[list[str], Query | None]":
    """Split the arguments into [index] or [], and the query, which is None for a painting alone.

    Raises InputError if there is neither a query nor a painting.
    """
    *given, text = words or [""]
    if not words or (not given and is_index(Path(text))):
        if painted:
            return list(words), None
        raise InputError(
            f"the query is missing; pass it after the index {text}, or a painting such as "
            "--paint=dog=left"
            if words
            else "the query is missing; pass it, or a painting such as --paint=dog=left"
        )
    return given, parse(text)  # mistakes show before torch is imported


def _read_options(arguments: argparse.Namespace) -> RerankOptions:
    """Return the re-ranking options; raise InputError for invalid or contradictory arguments."""
    if arguments.top < 1:
        raise InputError(f"--top must be at least 1, got {arguments.top}")
    values = {name: getattr(arguments, name) for name in option_names(RerankOptions)}
    options = from_named(RerankOptions, {k: v for k, v in values.items() if v is not None})
    if arguments.cache is not None and not options.rerank:
        raise InputError("--cache has no effect without --rerank; omit it")
    if arguments.paint and options.rerank:
        raise InputError("--paint and --rerank cannot be combined; omit one of them")
    if arguments.paint and arguments.approximate:
        raise InputError("--paint always searches all images; omit --approximate")
    return options


def _load_reranker(
    options: RerankOptions, arguments: argparse.Namespace, kind: str
) -> "Reranker | None":
    if not options.rerank:
        return None
    from ..evaluation.rerankers import load_reranker

    cache = arguments.cache or CHECKPOINTS / ".cache"
    return load_reranker(options, cache, arguments.device, ranks_texts=kind == "texts")


def _shown(path: str) -> str:
    """Return `path` relative to the working directory if it is inside that directory."""
    return path.removeprefix(os.path.join(os.getcwd(), ""))


def _write_page(
    path: Path,
    title: str,
    query: "Query | None",
    note: str,
    hits: "Sequence[Hit]",
    kind: str,
) -> None:
    from ..atomic_io import atomic_write
    from ..data.images import load_image
    from ..plots.hits import hits_page, texts_page

    def load(image: str) -> "Image.Image | None":
        try:
            return load_image(image)
        except InputError:
            return None

    terms = query.terms if query is not None else ()
    queried = [(term.text, load(term.text)) for term in terms if term.is_image]
    if kind == "texts":
        page = texts_page(title, note, hits, queried)
    else:
        page = hits_page(title, note, ((*hit, load(hit.item)) for hit in hits), queried)
    atomic_write(path, page.encode("utf-8", "replace"))
