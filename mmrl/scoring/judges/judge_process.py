"""The process of a local judge: a model that says how probable its replies are, or a reward model.

The parent starts it as `python -m mmrl.scoring.judges.judge_process FD`. A model is not asked to
write: its value for an answer is the share of probability of `Yes`, or of the answer's letter,
among the replies that were named.
"""

from __future__ import annotations

import json
import os
import pickle
import sys
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any, Protocol

import torch
from PIL import Image

from mmrl.errors import MediaError
from mmrl.policy.model_folder import model_folder
from mmrl.scoring.judges.judge_config import JudgeConfig
from mmrl.scoring.judges.question import Question
from mmrl.scoring.judges.shown_media import pictures_of

Reply = list[float] | str
"""The values of a question's answers, or why there are none."""


class Loaded(Protocol):
    """A model that is ready."""

    def values(self, questions: Sequence[Question]) -> list[Reply]:
        """What each question comes to."""
        ...


class ByLetters:
    """A causal model: the next token after the question, among the replies that were named."""

    def __init__(self, config: JudgeConfig) -> None:
        from transformers import AutoModelForImageTextToText, AutoProcessor

        self._config, folder = config, _folder(config)
        self._processor = AutoProcessor.from_pretrained(folder)
        self._tokenizer = self._processor.tokenizer
        self._tokenizer.padding_side = "left"
        loaded = AutoModelForImageTextToText.from_pretrained(
            folder, dtype=getattr(torch, config.dtype)
        )
        self._model = loaded.to(config.device).eval()
        self._special = sorted(self._tokenizer.get_added_vocab(), key=len, reverse=True)

    def values(self, questions: Sequence[Question]) -> list[Reply]:
        """Probabilities of the replies; a batch is one forward."""
        found: dict[int, Reply] = {}
        shown: dict[int, tuple[str, list[Image.Image]]] = {}
        for i, question in enumerate(questions):
            try:
                shown[i] = self._shown(question)
            except MediaError as error:
                found[i] = f"a medium cannot be shown: {error}"
        if shown:
            logits = self._logits(list(shown.values()))
            for i, row in zip(shown, logits, strict=True):
                found[i] = self._value(questions[i], row)
        return [found[i] for i in range(len(questions))]

    def _shown(self, question: Question) -> tuple[str, list[Image.Image]]:
        before, answers = question.text()
        content: list[dict[str, Any]] = [{"type": "text", "text": before}]
        pictures: list[Image.Image] = []
        for part in question.parts:
            if isinstance(part, str):
                content.append({"type": "text", "text": self._plain(part)})
            else:
                own = pictures_of(part, self._config.max_side, self._config.frames)
                content += [{"type": "image"} for _ in own]
                pictures += own
        named = " or ".join(_replies(question))
        content.append({"type": "text", "text": f"{self._plain(answers)}Reply with {named}."})
        messages = [{"role": "user", "content": content}]
        text = self._processor.apply_chat_template(messages, add_generation_prompt=True)
        return text, pictures

    def _plain(self, text: str) -> str:
        """The text without special tokens: what an answer says cannot end its turn."""
        for token in self._special:
            text = text.replace(token, f"{token[:1]} {token[1:]}")
        return text

    @torch.inference_mode()
    def _logits(self, shown: Sequence[tuple[str, list[Image.Image]]]) -> list[torch.Tensor]:
        pictures = [picture for _, own in shown for picture in own]
        inputs = self._processor(
            text=[text for text, _ in shown],
            images=pictures or None,
            padding=True,
            return_tensors="pt",
        ).to(self._config.device)
        return list(self._model(**inputs).logits[:, -1].float())

    def _value(self, question: Question, logits: torch.Tensor) -> Reply:
        ids = [
            self._tokenizer.encode(reply, add_special_tokens=False)[0]
            for reply in _replies(question)
        ]
        if len(set(ids)) < len(ids):
            return f"the tokenizer begins {_replies(question)} alike"
        shares = torch.softmax(logits[ids], 0).tolist()
        return shares[:1] if question.form == "pointwise" else shares


class ByHeads:
    """A reward model: the mean of its named logits for a prompt and an answer, as it is."""

    def __init__(self, config: JudgeConfig) -> None:
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        self._config, folder = config, _folder(config)
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        loaded = AutoModelForSequenceClassification.from_pretrained(
            folder, dtype=getattr(torch, config.dtype)
        )
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        loaded.config.pad_token_id = self._tokenizer.pad_token_id
        places = list(config.heads.values())
        if max(places) >= loaded.config.num_labels:
            raise ValueError(f"heads {places} of a model with {loaded.config.num_labels} logits")
        self._places, self._model = places, loaded.to(config.device).eval()

    @torch.inference_mode()
    def values(self, questions: Sequence[Question]) -> list[Reply]:
        """One forward for the batch."""
        texts = [self._text(question) for question in questions]
        # A template writes the special tokens itself; a second start token is another text.
        own = self._tokenizer.chat_template is None
        inputs = self._tokenizer(
            texts, padding=True, return_tensors="pt", add_special_tokens=own
        ).to(self._config.device)
        logits = self._model(**inputs).logits.float()
        return [[value] for value in logits[:, self._places].mean(1).tolist()]

    def _text(self, question: Question) -> str:
        asked = "".join(part for part in question.parts if isinstance(part, str))
        if self._tokenizer.chat_template is None:
            return f"{asked}\n\n{question.answers[0]}"
        said = [("user", asked), ("assistant", question.answers[0])]
        messages = [{"role": role, "content": text} for role, text in said]
        return str(self._tokenizer.apply_chat_template(messages, tokenize=False))


def _replies(question: Question) -> tuple[str, ...]:
    return ("Yes", "No") if question.form == "pointwise" else question.names


def _folder(config: JudgeConfig) -> str:
    return str(model_folder(str(config.path)))


def main() -> None:
    """Serve the parent until its end of the socket closes."""
    connection = Connection(int(sys.argv[1]))
    config = JudgeConfig.model_validate_json(connection.recv_bytes())
    try:
        loaded: Loaded = ByHeads(config) if config.kind == "reward_model" else ByLetters(config)
    except Exception as error:  # the parent raises it with this text
        connection.send_bytes(json.dumps({"failed": f"{type(error).__name__}: {error}"}).encode())
        return
    connection.send_bytes(json.dumps({"ready": True}).encode())
    while True:
        try:
            # Bytes that the parent pickled itself: what a model said is a string in them.
            questions = pickle.loads(connection.recv_bytes())
        except EOFError:
            os._exit(0)
        connection.send_bytes(json.dumps(loaded.values(questions)).encode())


if __name__ == "__main__":
    main()
