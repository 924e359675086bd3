"""Embeddings and output heads, recognised by name and shape for all families of transformers."""

import re
from collections.abc import Sequence

_EMBEDDING = re.compile(
    r"""(^|\.)(
        embed_(tokens|positions|in|tokens_per_layer)   # Llama and its kin, BART, OPT; GPT-NeoX
        | wte | wpe                                     # GPT-2
        | shared | relative_attention_bias              # T5
        | (\w+_)?embeddings?                            # word_, position_, token_type_, tok_, token_…
    )\.weight$""",
    re.VERBOSE,
)
_HEAD = re.compile(
    r"""(^|\.)(
        (\w+_)? lm_head (\.decoder)?        # most; ELECTRA, RoBERTa
        | embed_out                         # GPT-NeoX
        | (cls\.)? predictions\.decoder     # BERT, ALBERT
    )\.weight$
    | ^(decoder|proj_out|output)\.weight$   # ModernBERT; Whisper; Llama as Meta names it""",
    re.VERBOSE,
)


def is_embedding(name: str, shape: Sequence[int]) -> bool:
    """Tell whether a tensor is a table with one row for each input token or position."""
    return len(shape) == 2 and _EMBEDDING.search(name) is not None


def is_head(name: str, shape: Sequence[int]) -> bool:
    """Tell whether a tensor is a language model's output matrix, one row for each token."""
    return len(shape) == 2 and _HEAD.search(name) is not None
