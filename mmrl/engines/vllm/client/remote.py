"""vLLM in processes of its own, on other GPUs or machines: prompts and weights go there.

Safe to use from several threads: a `sync` waits for what is being generated, and generation for it.
"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
import threading
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch

from mmrl.backend.world import World
from mmrl.engines.batch import respond
from mmrl.engines.engine import Sampling
from mmrl.engines.vllm import wire
from mmrl.engines.vllm.adapter import RANKS, takes_adapter
from mmrl.engines.vllm.client.http import Client
from mmrl.engines.vllm.client.process import ServerProcess, devices_of_servers, free_port
from mmrl.engines.vllm.client.push import Push, WeightFiles, broadcast
from mmrl.engines.vllm.client.pushed_parts import Parts
from mmrl.engines.vllm.client.server_pool import Pool
from mmrl.engines.vllm.in_process import ENDPOINT, Request, check_length, engine_arguments, requests
from mmrl.engines.vllm.media import placed_media, sent_positions
from mmrl.errors import UserError
from mmrl.model_config import ModelConfig
from mmrl.policy.buckets import Buckets
from mmrl.policy.encoder import whole
from mmrl.policy.policy import Policy
from mmrl.policy.weights import Weights, weights_of
from mmrl.rollout_config import SERVER_KEY, RolloutConfig
from mmrl.types import Prompt, Response

HERE = ("localhost", "127.0.0.1", "::1")


class VLLMServerEngine:
    """Samples with servers that hold the weights of the last `sync`, all of them the same.

    Responses mean what those of `HFEngine` mean. Servers are those of `rollout.servers.urls`, or
    are started here with vLLM's engine arguments of `rollout.vllm`.
    """

    def __init__(
        self,
        policy: Policy,
        model: ModelConfig,
        rollout: RolloutConfig,
        world: World | None = None,
    ) -> None:
        self._policy, self._model, self._rollout = policy, model, rollout
        self._world = world or World()
        self._lock = threading.Lock()
        self._syncs, self._label, self._max_length = 0, "", 0
        self._base, self._most_rank = "", RANKS[-1]
        self._logs = Path(tempfile.mkdtemp(prefix="mmrl-vllm-"))
        self._servers = rollout.servers
        by_file = self._servers.weights == "file" and self._world.first
        self._files = WeightFiles(weights_folder(rollout)) if by_file else None
        self._run, self._key, self._urls = self._world.once(self._addresses)
        starts = self._world.first and not self._servers.urls
        clients = [Client(url, self._key) for url in self._urls]
        start = self._start if starts else None
        self.pool = Pool(rollout.servers, clients, start, self._check)
        try:
            self._world.once(self.pool.open)
            if not self._world.first:
                self.pool.open()
            settings, on_gpu = policy.model.config, torch.cuda.is_available()
            self.takes_adapter = takes_adapter(settings, model, rollout, on_gpu, self._most_rank)
            self.sync(weights_of(policy, 0))
        except BaseException:
            self.close()
            raise

    def _addresses(self) -> tuple[str, str, list[str]]:
        """A label of this run, the servers' key, and where they are or will be."""
        servers = self._servers
        key = os.environ.get(SERVER_KEY, "") if servers.urls else secrets.token_hex(16)
        here = [f"http://127.0.0.1:{free_port()}" for _ in range(servers.start)]
        return secrets.token_hex(4), key, list(servers.urls) or here

    def generate(
        self, prompts: Sequence[Prompt], counts: Sequence[int], sampling: Sampling, seed: int
    ) -> list[list[Response]]:
        """Sample counts[i] responses to prompt i, a request each, spread over the servers."""
        with self._lock:
            asked = list(requests(counts, sampling, seed))
            for request in asked:
                check_length(prompts[request.prompt], sampling, self._max_length)
            drawn = self.pool.ask([self._ask(prompts[r.prompt], r) for r in asked])
        groups: list[list[Response]] = [[] for _ in prompts]
        for request, answers in zip(asked, drawn, strict=True):
            groups[request.prompt] += [respond(self._policy, d.ids, d.logprobs) for d in answers]
        return groups

    def sync(self, weights: Weights) -> None:
        """Give the weights to every server; each drops its caches of the old ones.

        One process gives them, under a label; after it, all ask for answers by that label only.
        """
        with self._lock:
            self.version: int | None = None
            self._syncs += 1
            self._label = f"{self._run}-{self._syncs}"
            parts = Parts(self._policy, weights, self._world)
            if not self._world.first:
                parts.follow()
            later = self._world.once(lambda: parts.given(lambda: self._hand_out(parts)))
            if not self._world.first:
                self.pool.expect(later, self._label)
            self._world.gather(None)  # nobody needs the old ones any more
            if self._files is not None:
                self._files.drop_old()
            self.version = weights.version

    def _hand_out(self, parts: Parts) -> Mapping[str, Any] | None:
        """Push the weights; returns what servers are told that come later."""
        if self._files is None:
            self.pool.push(lambda clients: self._broadcast(parts, clients), self._label)
            return None
        push = self._write(parts, self._files)
        self.pool.push(lambda _: push, self._label)
        return push.later

    def _write(self, parts: Parts, files: WeightFiles) -> Push:
        """Write the weights, or the adapter; the base only the first time."""
        if not self.takes_adapter:
            (whole,) = parts.take("whole")
            return files.write(whole, self._label)
        base, adapter = self._base_and_adapter(parts, lacks=not self._base)
        if base is not None:
            files.write(base, self._label)
        return files.write_adapter(adapter, self._label)

    def _broadcast(self, parts: Parts, clients: Sequence[Client]) -> Push:
        """Send the weights, or the adapter; the base too where one of the servers lacks it."""
        seconds, device = self._servers.request_timeout_seconds, parts.weights.device
        if not self.takes_adapter:
            self._base, (whole,) = self._label, parts.take("whole")
            return broadcast(whole, None, device, self._base, clients, seconds)
        lacks = not self._base or any(c.state()["base"] != self._base for c in clients)
        base, adapter = self._base_and_adapter(parts, lacks=lacks)
        # One group sends both: an adapter that waited in the host's memory joins the base.
        device = self._policy.device if lacks else device
        return broadcast(base, adapter, device, self._base, clients, seconds)

    def _base_and_adapter(self, parts: Parts, *, lacks: bool) -> tuple[Buckets | None, Buckets]:
        """The adapter, and the base where it is lacking, which is then this version's."""
        if not lacks:
            return None, parts.take("adapter")[0]
        base, adapter = parts.take("base", "adapter")
        self._base = self._label
        return base, adapter

    def close(self) -> None:
        """End the servers that were started here."""
        self.pool.close()
        if self._files is not None:
            self._files.close()
        if not self.pool.restarts and not any(s.lost for s in self.pool.servers) and self._syncs:
            shutil.rmtree(self._logs, ignore_errors=True)  # else somebody will want to read them

    def _ask(self, prompt: Prompt, request: Request) -> wire.Ask:
        family = self._policy.family
        return wire.Ask(
            sample=prompt.sample.id,
            ids=tuple(prompt.ids.tolist()),
            media=tuple(placed_media(prompt, family, partial(whole, family=family))),
            sampling=request.sampling,
            count=request.count,
            seed=request.seed,
            banned=tuple(int(i) for i in family.banned_ids),
            end_ids=tuple(int(i) for i in family.end_ids),
            version=self._label,
            adapter=self.takes_adapter,
            positions=sent_positions(prompt),
        )

    def _start(self, number: int) -> ServerProcess:
        arguments = server_arguments(
            self._policy.model.config, self._model, self._rollout, torch.cuda.is_available()
        )
        devices = server_devices(self._rollout)
        return ServerProcess(
            arguments,
            urlsplit(self._urls[number]).port or 0,
            self._key,
            devices[number] if devices else None,
            self._logs / f"server-{number}.log",
        )

    def _check(self, client: Client) -> None:
        """Refuse a server of another kind of model than the policy's."""
        state = client.state()
        wanted, found = wire.fingerprint(self._policy.model.config), state["fingerprint"]
        if found != wanted:
            differ = ", ".join(
                f"{k} {found.get(k)} (not {v})" for k, v in wanted.items() if found.get(k) != v
            )
            raise UserError(
                f"the vLLM server at {client.url} serves {state['model']}, which is not the run's "
                f"model {self._model.path}: {differ}"
            )
        lengths = [self._max_length] if self._max_length else []
        self._max_length = min([*lengths, int(state["max_length"])])
        self._most_rank = min(self._most_rank, int(state["max_lora_rank"]))


def server_arguments(
    settings: Any, model: ModelConfig, rollout: RolloutConfig, on_gpu: bool
) -> dict[str, Any]:
    """What `vllm serve` is started with; those of `rollout.vllm` win."""
    # A server is awake all the time, and a GPU of its own is all its own.
    changed = ("enable_sleep_mode", "gpu_memory_utilization")
    common = engine_arguments(settings, model, rollout, on_gpu)
    kept = {name: value for name, value in common.items() if name not in changed}
    return {**kept, "middleware": [ENDPOINT], **rollout.vllm}


def server_devices(rollout: RolloutConfig) -> Sequence[str]:
    """CUDA devices of each server to start; none where there is no GPU."""
    servers = rollout.servers
    if servers.devices:
        if len(servers.devices) != servers.start:
            raise UserError(
                f"rollout.servers.devices names {len(servers.devices)} servers' GPUs, "
                f"rollout.servers.start={servers.start}"
            )
        return servers.devices
    if not torch.cuda.is_available():
        return ()
    every = ",".join(map(str, range(torch.cuda.device_count())))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", every).split(",")
    each = int(rollout.vllm.get("tensor_parallel_size", 1))
    trainers = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return devices_of_servers(servers.start, each, visible, trainers)


def weights_folder(rollout: RolloutConfig) -> Path | None:
    """Where weights are handed over; raises UserError where the servers could not see it."""
    servers = rollout.servers
    away = [url for url in servers.urls if urlsplit(url).hostname not in HERE]
    if away and servers.weights_folder is None:
        raise UserError(
            f"{away[0]} is another machine: name a folder that it sees under the same path as "
            "rollout.servers.weights_folder"
        )
    return servers.weights_folder
