# Swathe for schedulers and workers of a Dask cluster, without CUDA. For GPUs build with a CUDA image and torch:
#   docker build --build-arg BASE=nvidia/cuda:12.4.1-runtime-ubuntu22.04 ... needs a Python of 3.11 or newer in it
ARG BASE=python:3.12-slim
FROM ${BASE}

# the CPU build of PyTorch is a tenth of the other; an empty TORCH_INDEX takes the one with CUDA
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip install --no-cache-dir ${TORCH_INDEX:+--index-url ${TORCH_INDEX}} torch torchvision

COPY pyproject.toml README.md LICENSE CHANGELOG.md /src/
COPY models /src/models
COPY pipeline /src/pipeline
COPY train /src/train
COPY swathe /src/swathe
RUN pip install --no-cache-dir "/src[cluster,s3]"

RUN useradd --create-home swathe
USER swathe
WORKDIR /data
ENV PYTHONUNBUFFERED=1
CMD ["swathe", "--help"]
