# dynlora's dashboard, as a user without rights on a read-only root:
#   docker build -t dynlora .
#   docker run --rm --read-only --tmpfs /tmp -p 127.0.0.1:8501:8501 -v runs:/runs -e DYNLORA_TOKEN=... dynlora
# With a GPU: docker build --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu128 ... and docker run --gpus all ...
ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
WORKDIR /src
RUN python -m venv /opt/dynlora
COPY pyproject.toml hatch_build.py README.md LICENSE CHANGELOG.md app.py constraints.txt ./
COPY .streamlit .streamlit
COPY dynlora dynlora
COPY pages pages
COPY sample_runs sample_runs
RUN /opt/dynlora/bin/pip install --no-cache-dir --extra-index-url "${TORCH_INDEX}" .

FROM python:${PYTHON}-slim
RUN useradd --create-home --uid 1000 dynlora && install -d -o dynlora /runs
COPY --from=build /opt/dynlora /opt/dynlora
# Models and data are fetched into the volume: nothing else can be written.
ENV PATH=/opt/dynlora/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    DYNLORA_CACHE=/runs/.cache \
    HF_HOME=/runs/.cache/huggingface \
    HOME=/tmp
USER 1000
WORKDIR /runs
VOLUME /runs
EXPOSE 8501
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8501/_stcore/health', timeout=4)"]
# Bound to all addresses of the container it is read-only, until somebody types the token of DYNLORA_TOKEN.
CMD ["dynlora", "ui", "--host", "0.0.0.0", "--port", "8501", "--runs-dir", "/runs"]
