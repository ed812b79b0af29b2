"""Splitting texts into sentences."""

import re

from .tokenizer import ABBREVIATIONS

# The end of a sentence: a line break, or final punctuation and a space. Closing quotes and brackets
# before the space belong to the sentence, which goes on if a lower-case letter follows them.
_END = re.compile(r"\s*\n\s*|(?<=[.!?。！？])(?:\s+|[\"'”’)\]]+\s+(?![a-z]))")
_ABBREVIATED = re.compile(rf"(?:^|[\s(.])(?:{ABBREVIATIONS}|[a-z])\.$", re.IGNORECASE)


def split_sentences(text: str) -> list[str]:
    """Return the sentences of a text that contain a letter or a digit, in order and stripped.

    A sentence ends at a line break, or at ., ! or ? (also full-width) followed by white space,
    unless the word before is a common abbreviation or a single letter. Closing quotes and brackets
    belong to the sentence, which goes on if a lower-case letter follows them.
    """
    sentences, start = [], 0
    for end in _END.finditer(text):
        part = text[start : end.end()]
        if "\n" not in end[0] and _ABBREVIATED.search(text[start : end.start()]):
            continue
        sentences.append(part.strip())
        start = end.end()
    sentences.append(text[start:].strip())
    return [sentence for sentence in sentences if any(map(str.isalnum, sentence))]
