"""What captions need to know about a language model's tokenizer."""

from typing import Any

# What transformers 4.26, which the released numbers come from, does to decoded text; newer versions differ.
SPACED_MARKS = (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're")


def join_marks(text: str) -> str:
    """Attach punctuation and English contractions to the word before them ("a dog 's" -> "a dog's")."""
    for mark in SPACED_MARKS:
        text = text.replace(mark, mark.strip())
    return text


def start_token(tokenizer: Any) -> int:
    """The token that every caption begins with.

    Raises:
        ValueError: the tokenizer has none.
    """
    if tokenizer.bos_token_id is None:
        raise ValueError("the language model's tokenizer has no start token (bos_token); use another llm")
    return tokenizer.bos_token_id


def newline_token(tokenizer: Any) -> int:
    r"""The token that ends a caption: "\n".

    Raises:
        ValueError: it is not one token of the tokenizer.
    """
    ids = tokenizer("\n", add_special_tokens=False).input_ids
    if len(ids) != 1 or ids[0] == tokenizer.unk_token_id:
        raise ValueError(
            f"captions end with a newline, which must be one token; the language model's tokenizer makes {ids} of it; "
            "use another llm"
        )
    return ids[0]
