# mmrl with CUDA. Build: docker build -t mmrl . ; other extras: --build-arg EXTRAS=data,vllm
ARG CUDA=13.0.2
FROM nvidia/cuda:${CUDA}-devel-ubuntu24.04

# DeepSpeed and some kernels of vLLM compile small extensions at their first use: hence -devel.
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-venv python3-dev git libaio-dev \
    && rm -rf /var/lib/apt/lists/*

# uv resolves the torch, torchvision and torchaudio that fit each other.
ENV VIRTUAL_ENV=/opt/mmrl PATH=/opt/mmrl/bin:$PATH
RUN python3 -m venv /opt/mmrl && pip install --no-cache-dir uv

WORKDIR /src
ARG EXTRAS=data,video,audio,qlora,deepspeed
COPY pyproject.toml README.md LICENSE ./
COPY tasks tasks
COPY data_recipes data_recipes
COPY mmrl mmrl
RUN uv pip install --no-cache ".[${EXTRAS}]"

# A user without privileges; runs and caches go where it may write.
RUN useradd --create-home --uid 10001 mmrl && mkdir /app && chown mmrl /app
USER mmrl
WORKDIR /app
COPY --chown=mmrl configs configs
CMD ["mmrl", "--help"]
