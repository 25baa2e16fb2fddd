"""The endpoint as OpenAI's clients see it: answers plain and streamed, tools, ids, refusals."""

from __future__ import annotations

import base64
import http.client
import json
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mmrl.environments.chat_endpoint import Call, Completion, Endpoint, Refusal
from mmrl.rewards.chat_messages import (
    BadMessages,
    is_prefix,
    messages_of,
    observation_of,
    reply_of,
    sample_of,
)
from mmrl.types import MediaRef, Sample, Text

PNG = base64.b64encode(b"picture").decode()
IMAGE = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}
SAID = Completion(
    {"role": "assistant", "content": " AB \n"}, "stop", (5, 6), (1, 2), (-0.5, -1.0), 3
)


@pytest.fixture
def ask() -> Iterator[Callable[..., tuple[int, str, Any]]]:
    """Posts a body; every call gets `SAID`, or what its session names."""
    calls: queue.Queue[Any] = queue.Queue()
    endpoint = Endpoint(calls)
    seen: list[Call] = []

    def answer() -> None:
        while (call := calls.get()) is not None:
            seen.append(call)
            call.reply(Refusal(400, "no", "not so") if call.session == "refused" else SAID)

    threading.Thread(target=answer, daemon=True).start()
    port = int(endpoint.url.split(":")[2].split("/")[0])

    def post(body: Any, path: str = "/v1/chat/completions", **headers: str) -> tuple[int, str, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        text = body if isinstance(body, str) else json.dumps(body)
        connection.request("POST", path, text, {"content-type": "application/json", **headers})
        found = connection.getresponse()
        read = found.read().decode()
        connection.close()
        return found.status, read, seen[-1] if seen else None

    yield post
    calls.put(None)
    endpoint.close()


def test_an_answer_with_its_tokens_and_version(ask: Any) -> None:
    body = {"model": "policy:7", "messages": [], "logprobs": True, "return_token_ids": True}
    status, text, call = ask(body)
    found = json.loads(text)
    (choice,) = found["choices"]
    assert status == 200 and call.session == "7"
    assert choice["message"] == {"role": "assistant", "content": " AB \n"}
    assert choice["token_ids"] == [1, 2] and found["prompt_token_ids"] == [5, 6]
    assert [t["logprob"] for t in choice["logprobs"]["content"]] == [-0.5, -1.0]
    assert found["policy_version"] == 3 and found["usage"]["total_tokens"] == 4
    assert ask({"messages": []}, **{"x-session-id": "9"})[2].session == "9"


def test_a_stream_is_the_same_answer(ask: Any) -> None:
    body = {
        "model": "p:1",
        "messages": [],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    _, text, _ = ask(body)
    *events, done = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    first, last, usage = map(json.loads, events)
    assert done == "[DONE]" and first["choices"][0]["delta"]["content"] == " AB \n"
    assert last["choices"][0]["finish_reason"] == "stop" and usage["usage"]["prompt_tokens"] == 2


@pytest.mark.parametrize(
    ("body", "path", "status"),
    [
        ({"model": "policy:refused"}, "/v1/chat/completions", 400),
        ("{", "/v1/chat/completions", 400),
        ("[]", "/v1/chat/completions", 400),
        ({}, "/v1/completions", 404),
    ],
)
def test_what_cannot_be_answered_is_refused(ask: Any, body: Any, path: str, status: int) -> None:
    found, text, _ = ask(body, path)
    assert found == status and json.loads(text)["error"]["message"]


def test_messages_are_read_and_compared() -> None:
    called = {"function": {"name": "look", "arguments": '{"x": 1}'}}
    values: list[Any] = [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [IMAGE, {"type": "text", "text": "What "}, {"type": "text", "text": "now?"}],
        },
        {"role": "assistant", "content": None, "tool_calls": [called]},
        {"role": "tool", "tool_call_id": "a", "content": "nothing"},
        {"role": "user", "content": "And now?"},
    ]
    found = messages_of(values)
    assert found[1].parts == (MediaRef("image", b"picture"), Text("What now?"))
    sample = sample_of(found[:2], Sample("1", "t", (), None))
    assert (sample.system, sample.history) == ("Be brief.", ()) and len(sample.parts) == 2
    after = observation_of(found[3:], "2")
    assert after is not None and after.history == (("tool", 1),) and after.role == "user"
    assert observation_of(found[2:], "2") is None, "somebody speaks for the model"
    again = messages_of(
        [
            *values[:2],
            {
                **values[2],
                "content": "",
                "tool_calls": [{"function": {"name": "look", "arguments": '{ "x":1 }'}}],
            },
        ]
    )
    assert is_prefix(again, found)
    other = messages_of([*values[:2], {"role": "assistant", "content": "look"}])
    assert not is_prefix(other, found)


@pytest.mark.parametrize(
    "content",
    [
        [{"type": "image_url", "image_url": {"url": "http://somewhere/a.png"}}],
        [{"type": "x"}],
        7,
        [{"type": "image_url", "image_url": {"url": "data:image/png;base64,%%%"}}],
    ],
)
def test_what_is_no_message_says_where(content: Any) -> None:
    with pytest.raises(BadMessages, match=r"messages\[0\]"):
        messages_of([{"role": "user", "content": content}])


def test_calls_are_told_apart_where_there_are_tools() -> None:
    text = 'So: <tool_call>\n{"name": "look", "arguments": {"x": 1}}\n</tool_call>'
    message, answer = reply_of(text, tools=True)
    assert answer["content"] == "So:" and message.calls == (("look", '{"x": 1}'),)
    assert messages_of([answer])[0] == message
    assert reply_of(text, tools=False)[1] == {"role": "assistant", "content": text}
    broken = "<tool_call>{'name'}</tool_call>"
    assert reply_of(broken, tools=True)[1] == {"role": "assistant", "content": broken}
