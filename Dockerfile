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

RUN groupadd --system user \
    && useradd --system --no-log-init --gid user --no-create-home --home-dir /tmp user

WORKDIR /opt/app

# A virtual environment, because the base forbids installing into its own Python (PEP 668). It sees the base's
# torch, which must stay: a second one would bring CUDA's libraries once more. `pip check` also names
# conflicts among what the base carries besides; only those of our own packages matter.
COPY requirements.txt ./
RUN python -m venv --system-site-packages /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir --disable-pip-version-check --requirement requirements.txt \
    && ! /opt/venv/bin/pip check | grep -iE "^($(sed -n 's/==.*//p' requirements.txt | paste -s -d '|')) " \
    && ! ls -d /opt/venv/lib/python*/site-packages/torch /opt/venv/lib/python*/site-packages/nvidia 2>/dev/null
ENV PATH=/opt/venv/bin:$PATH

COPY inference.py ./
COPY acouslic ./acouslic
COPY resources ./resources
# A checkout made under a strict umask would be unreadable for the user below.
RUN chmod -R a+rX .

USER user
# What cannot be imported fails here rather than on the platform.
RUN python -c "import inference, acouslic.pipeline, acouslic.platform_io"

ENTRYPOINT ["python", "inference.py"]
