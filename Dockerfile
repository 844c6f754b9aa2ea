# The containers for grand-challenge.org: the algorithm's, a stage an interface (exec and invoke), and the one with
# which organisers score it (evaluation). ./build.sh chooses.
# CUDA 12.6 is what the platform's T4 machines need.
FROM pytorch/pytorch:2.9.1-cuda12.6-cudnn9-runtime AS common

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
# torch, which stays with its own build of CUDA: a second one would take gigabytes. All else has the exact pins,
# less what others depend on and inference never imports: a case at the end of the build proves that. What fits no pin
# has no hash here, so that pip refuses to install it and the build fails. Nothing that runs needs pip.
COPY requirements.txt ./
RUN awk '/^[a-z]/ { wanted = !/^(torch|torchvision|triton|nvidia-[a-z0-9-]+)==/ } \
        /^(click|colorama|hf-xet|networkx|openvino-telemetry)==/ { wanted = 0 } wanted' \
        requirements.txt >/tmp/requirements.txt \
    && python -m venv --system-site-packages --without-pip /opt/venv \
    && python -m pip --python /opt/venv/bin/python install --no-cache-dir --disable-pip-version-check --no-deps \
        --require-hashes --requirement /tmp/requirements.txt \
    && rm /tmp/requirements.txt
ENV PATH=/opt/venv/bin:$PATH

COPY inference.py app.py ./
COPY acouslic ./acouslic
COPY resources ./resources
# A checkout made under a strict umask would be unreadable for the user below.
RUN chmod -R a+rX .

# A number, as a host that knows no such name can tell from it that this is not root.
USER 10001
# What cannot be imported, found or computed fails here rather than on the platform.
RUN python -m acouslic.self_check

# Last, since they change with every commit. `acouslic --version` tells the revision from the environment.
ARG VERSION=unknown
ARG REVISION=unknown
ENV ACOUSLIC_REVISION=$REVISION
LABEL org.opencontainers.image.title="acouslic" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version=$VERSION \
      org.opencontainers.image.revision=$REVISION
# One failed case cancels a whole submission: a stack that can be read but not measured is answered.
ENV ACOUSLIC_FAIL_SOFT=1
# The only bundle that this image takes; empty: any.
ARG BUNDLE_ID=
ENV ACOUSLIC_BUNDLE_ID=$BUNDLE_ID


# Runs once a case.
FROM common AS exec
LABEL org.grand-challenge.api-method="exec"
RUN python inference.py --help >/dev/null
ENTRYPOINT ["python", "inference.py"]


# A web server that answers many cases. `h11`, `anyio` and `pydantic` are in the stage above.
FROM common AS invoke
LABEL org.grand-challenge.api-method="invoke"
USER 0
COPY requirements-invoke.txt ./
RUN awk '/^[a-z]/ { wanted = /^(annotated-doc|click|fastapi|opentelemetry-api|starlette|uvicorn)==/ } wanted' \
        requirements-invoke.txt >/tmp/requirements.txt \
    && pip --python /opt/venv/bin/python install --no-cache-dir --disable-pip-version-check --no-deps \
        --require-hashes --requirement /tmp/requirements.txt \
    && rm /tmp/requirements.txt
USER 10001
RUN python -c "import app, fastapi, uvicorn"
EXPOSE 4743
ENTRYPOINT ["python", "app.py"]


# Scores a submission, for organisers: no torch, so it stands on a base of its own, a fraction of the other's size.
FROM python:3.11-slim-bookworm AS evaluation

ENV PYTHONUNBUFFERED=1 \
    PYTHONUTF8=1 \
    PYTHONDONTWRITEBYTECODE=1

RUN groupadd --gid 10001 user \
    && useradd --uid 10001 --gid 10001 --no-log-init --no-create-home --home-dir /tmp user

WORKDIR /opt/app

COPY requirements-dev.txt ./
RUN awk '/^[a-z]/ { wanted = /^(annotated-types|cloudpickle|grand-challenge-metrics|isal|joblib|narwhals|numpy)==/ || \
        /^(opencv-python-headless|pydantic|pydantic-core|scikit-learn|scipy|simpleitk|threadpoolctl|tqdm)==/ || \
        /^(typing-extensions|typing-inspection)==/ } wanted' \
        requirements-dev.txt >/tmp/requirements.txt \
    && python -m pip install --no-cache-dir --disable-pip-version-check --root-user-action ignore --no-deps \
        --require-hashes --requirement /tmp/requirements.txt \
    && rm /tmp/requirements.txt

COPY evaluate.py ./
COPY acouslic ./acouslic
COPY dataset ./dataset
COPY evaluation ./evaluation
RUN chmod -R a+rX .

USER 10001
RUN python -c "import evaluation.platform" && python evaluate.py --help >/dev/null

ARG VERSION=unknown
ARG REVISION=unknown
ENV ACOUSLIC_REVISION=$REVISION
LABEL org.opencontainers.image.title="acouslic-evaluation" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version=$VERSION \
      org.opencontainers.image.revision=$REVISION \
      org.grand-challenge.api-method="exec"
ENTRYPOINT ["python", "evaluate.py"]


# What `docker build .` makes where no stage is named: the challenge's kind.
FROM exec
