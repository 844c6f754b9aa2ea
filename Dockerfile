# The algorithm container of grand-challenge.org. CUDA 12.6 is what the platform's T4 machines need.
FROM pytorch/pytorch:2.9.1-cuda12.6-cudnn9-runtime

LABEL org.grand-challenge.api-method="exec" \
      org.opencontainers.image.title="acouslic" \
      org.opencontainers.image.licenses="Apache-2.0"

# Unbuffered, since the last lines before a failure are the ones that matter; UTF-8, since one other byte fails
# the job; caches in /tmp, the only place that is certain to be writable; nothing is ever fetched.
ENV PYTHONUNBUFFERED=1 \
    PYTHONUTF8=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    XDG_CACHE_HOME=/tmp/cache \
    HF_HOME=/tmp/cache/huggingface \
    HF_HUB_OFFLINE=1 \
    TORCH_HOME=/tmp/cache/torch \
    TORCHINDUCTOR_CACHE_DIR=/tmp/cache/torchinductor \
    TRITON_CACHE_DIR=/tmp/cache/triton

RUN groupadd --gid 10001 user \
    && useradd --uid 10001 --gid 10001 --no-log-init --no-create-home --home-dir /tmp user

WORKDIR /opt/app

# A virtual environment, because the base forbids installing into its own Python (PEP 668). It sees the base's
# torch, which stays with its own build of CUDA: a second one would take gigabytes. All else has the exact pins. What
# is missing, or fits no pin, has no hash here, so that pip refuses to install it and the build fails.
COPY requirements.txt ./
RUN awk '/^[a-z]/ { wanted = !/^(torch|torchvision|triton|nvidia-[a-z0-9-]+)==/ } wanted' \
        requirements.txt >/tmp/requirements.txt \
    && python -m venv --system-site-packages /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes \
        --requirement /tmp/requirements.txt \
    && rm /tmp/requirements.txt
ENV PATH=/opt/venv/bin:$PATH

COPY inference.py ./
COPY acouslic ./acouslic
COPY resources ./resources
# A checkout made under a strict umask would be unreadable for the user below.
RUN chmod -R a+rX .

# A number, as a host that knows no such name can tell from it that this is not root.
USER 10001
# What cannot be imported fails here rather than on the platform.
RUN python -c "import inference, acouslic.pipeline, acouslic.platform_io"

# Last, since they change with every commit. `acouslic --version` tells the revision from the environment.
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.version=$VERSION \
      org.opencontainers.image.revision=$REVISION
ENV ACOUSLIC_REVISION=$REVISION

ENTRYPOINT ["python", "inference.py"]
