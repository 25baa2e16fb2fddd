"""The routes that mmrl adds to `vllm serve` (`--middleware`): runs in the server's process.

vLLM's own token-in-token-out route cannot say which ids inside a medium's range get a feature row
(`is_embed`), so it cannot take a video whose frames are dated, and it takes tensors as base64 in
JSON. These routes use the same engine behind it.
"""

from __future__ import annotations

import asyncio
import hmac
import itertools
import os
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import JSONResponse

from mmrl.engines.vllm import wire
from mmrl.engines.vllm.in_process import reported
from mmrl.engines.vllm.inputs import InputMaker, adapter_request
from mmrl.engines.vllm.sampling import sampling_params
from mmrl.engines.vllm.server.kept_media import KeptMedia
from mmrl.errors import UserError
from mmrl.rollout_config import SERVER_KEY

LONGEST_REASON = 400  # characters
NO_VERSION = "default"  # what vLLM calls the weights it was started with


class Endpoint:
    """ASGI middleware: answers requests to mmrl's routes and passes all others on."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._key = os.environ.get(SERVER_KEY, "")
        self._inputs: InputMaker | None = None
        self._numbers = itertools.count()
        self._loading = asyncio.Lock()
        self._media = KeptMedia()
        self._base = ""  # the version that brought the weights, an adapter's aside
        self._routes: dict[str, Callable[[Request, Any], Awaitable[JSONResponse]]] = {
            wire.GENERATE: self._generate,
            wire.WEIGHTS: self._weights,
            wire.STATE: self._state,
        }

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        route = self._routes.get(scope["path"]) if scope["type"] == "http" else None
        if route is None:
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        said = request.headers.get("x-mmrl-key", "")
        if not hmac.compare_digest(said.encode(), self._key.encode()):
            await _error(401, f"the server's {SERVER_KEY} is another one")(scope, receive, send)
            return
        await (await route(request, scope["app"].state.engine_client))(scope, receive, send)

    async def _state(self, _: Request, engine: Any) -> JSONResponse:
        adapters = engine.vllm_config.lora_config
        return JSONResponse(
            {
                "version": await engine.get_weight_version(),
                "max_length": engine.model_config.max_model_len,
                "base": self._base,
                "max_lora_rank": adapters.max_lora_rank if adapters else 0,
                "workers": engine.vllm_config.parallel_config.world_size,
                "model": engine.model_config.model,
                "fingerprint": wire.fingerprint(engine.model_config.hf_config),
            }
        )

    async def _generate(self, request: Request, engine: Any) -> JSONResponse:
        """Sample; a client that hangs up ends its request in the engine too."""
        try:
            ask = wire.unpack(await request.body(), self._media)
        except wire.Lacking as lacking:
            return _error(wire.LACKING, str(lacking))
        version = await engine.get_weight_version()
        if version != ask.version:
            return _error(wire.STALE, f"asked for weights {ask.version}, has {version}")
        self._media.keep(ask.media)
        drawing = asyncio.ensure_future(self._draw(ask, engine))
        leaving = asyncio.ensure_future(_left(request))
        await asyncio.wait({drawing, leaving}, return_when=asyncio.FIRST_COMPLETED)
        leaving.cancel()
        if not drawing.done():
            drawing.cancel()
            return _error(499, "the client has gone")
        try:
            outputs = drawing.result()
        except (UserError, ValueError) as error:
            return _error(wire.REFUSED, f"sample '{ask.sample}': {error}")
        used = {span.version for one in outputs for span in one.weight_versions or ()}
        if used != {version}:
            return _error(wire.STALE, f"the weights changed from {version} while it answered")
        drawn = [wire.Drawn(np.array(one.token_ids), reported(one)) for one in outputs]
        return JSONResponse(wire.pack_answer(version, drawn))

    async def _draw(self, ask: wire.Ask, engine: Any) -> list[Any]:
        self._inputs = self._inputs or InputMaker(engine.model_config)
        made = self._inputs.make(ask.ids, ask.media, ask.sample)
        how = sampling_params(
            ask.sampling, ask.count, ask.seed, ask.banned, ask.end_ids, ask.positions
        )
        adapter = adapter_request() if ask.adapter else None
        name = f"mmrl-{next(self._numbers)}"
        async for output in engine.generate(made, how, name, lora_request=adapter):
            last = output
        return sorted(last.outputs, key=lambda one: one.index)

    async def _weights(self, request: Request, engine: Any) -> JSONResponse:
        """Take weights and drop the caches of the old ones; until then there is no version."""
        asked = await request.json()
        version = asked["version"]
        async with self._loading:
            if await engine.get_weight_version() == version:
                return JSONResponse({"version": version})  # another process of the run was first
            await engine.update_weight_version(NO_VERSION)
            await engine.pause_generation(mode="wait")
            try:
                await self._take(asked["push"], engine)
            # A worker's error arrives as the engine's own, whatever it was.
            except Exception as error:
                return _error(wire.REFUSED, f"{type(error).__name__}: {error}")
            finally:
                self._media.clear()
                await engine.reset_mm_cache()
                await engine.reset_encoder_cache()
                await engine.reset_prefix_cache()
                await engine.resume_generation()
            await engine.update_weight_version(version)
        return JSONResponse({"version": version})

    async def _take(self, push: dict[str, Any], engine: Any) -> None:
        """Let the workers take a push, less the weights that they have."""
        loads = push["weights"] if "host" in push else push["base"] != self._base
        if loads:
            self._base = ""  # until it is done
        elif push["base"] != self._base:
            raise ValueError("an adapter came without the weights that it stands on")
        else:
            push = {**push, "folder": None}
        await engine.collective_rpc("take_pushed", args=(push,))
        self._base = push["base"]


async def _left(request: Request) -> None:
    while not await request.is_disconnected():
        await asyncio.sleep(0.5)


def _error(status: int, reason: str) -> JSONResponse:
    return JSONResponse({"error": " ".join(reason.split())[:LONGEST_REASON]}, status_code=status)
