"""What other packages' episodes begin with: each is begun, and its first call written down."""

from __future__ import annotations

import json
import queue
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmrl.environments.chat_endpoint import MODEL, Call, Endpoint, Refusal
from mmrl.environments.host import Began, Ended, Hosting
from mmrl.errors import UserError

BESIDE = 8
SECONDS = 300.0
"""Without any call: a host that does nothing for so long will not do more."""


def record(hosting: Hosting, path: Path, indices: Sequence[int]) -> int:
    """Write the records of the episodes at `indices`, a line each; returns how many there are.

    Every first call is refused; what the environment says `about` an episode is written too. An
    index that there is no episode for ends the records; another reason raises UserError with it.
    """
    inbox: queue.Queue[Any] = queue.Queue()
    endpoint, host = Endpoint(inbox), hosting.start(inbox)
    if host.count is not None:
        indices = [index for index in indices if index < host.count]
    found: dict[int, dict[str, Any]] = {}
    about: dict[int, Mapping[str, Any]] = {}
    left, running = list(indices), 0
    try:
        while left or running:
            while left and running < BESIDE:
                index = left.pop(0)
                host.play(f"{index}", index, index, endpoint.url, f"{MODEL}:{index}")
                running += 1
            event = _next(inbox)
            if isinstance(event, Call):
                row = {"messages": event.body.get("messages"), "tools": event.body.get("tools")}
                found.setdefault(int(event.session), row)
                event.reply(Refusal(400, "recorded", "the first call has been written down"))
            elif isinstance(event, Began):
                about[int(event.id)] = event.about
            elif isinstance(event, Ended):
                running -= 1
                if int(event.id) not in found:
                    raise UserError(f"episode {event.id} asked nothing: {event.error}")
    finally:
        host.close()
        endpoint.close()
    rows = ({"id": f"episode-{i}", "index": i, **found[i], "about": about.get(i)} for i in indices)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return len(indices)


def _next(inbox: queue.Queue[Any]) -> Any:
    try:
        return inbox.get(timeout=SECONDS)
    except queue.Empty:
        raise UserError(f"the environments have said nothing for {SECONDS:g} s") from None
