"""Processors of model folders; a tokenizer by itself stands in for one, of text alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoProcessor, PreTrainedTokenizerBase


class TextProcessor:
    """A tokenizer in the place of a processor, for models that take no media."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def __call__(self, text: list[str], **settings: Any) -> Any:
        """Tokenize texts, as the tokenizer does."""
        return self.tokenizer(text, **settings)

    def apply_chat_template(self, conversation: list[dict[str, Any]], **settings: Any) -> Any:
        """Render the chat template; content is one string there, never a list of parts."""
        turns = [
            {**turn, "content": "".join(part["text"] for part in turn["content"])}
            for turn in conversation
        ]
        return self.tokenizer.apply_chat_template(turns, **settings)

    def save_pretrained(self, folder: Path) -> None:
        """Write the tokenizer."""
        self.tokenizer.save_pretrained(folder)


def load(folder: Path, trust_remote_code: bool) -> Any:
    """The processor in a model's folder, or what stands in for it."""
    found = AutoProcessor.from_pretrained(
        folder, trust_remote_code=trust_remote_code, local_files_only=True
    )
    return TextProcessor(found) if isinstance(found, PreTrainedTokenizerBase) else found
