# profile and perfcheck on vLLM's public image.
#
#   docker build -t layerprof .
#   docker run --rm --gpus all -e HF_TOKEN -v "$PWD/perf:/perf" --user "$(id -u):$(id -g)" layerprof \
#     run --model meta-llama/Llama-3.1-8B --hardware H200 --out /perf
#
# HF_TOKEN is only ever passed in: it is needed for the config.json of a gated model, and no layer of the image holds it.
ARG VLLM_VERSION=v0.22.1

FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -ldflags='-s -w' -o /out/ ./cmd/...

FROM vllm/vllm-openai:${VLLM_VERSION}
COPY --from=build /out/ /usr/local/bin/
COPY LICENSE /usr/local/share/layerprof/LICENSE
# Any user may run it: what is written goes to /perf and to these folders, which every user can write to.
ENV HOME=/home/layerprof XDG_CACHE_HOME=/home/layerprof/.cache
RUN mkdir -p /home/layerprof/.cache /perf && chmod -R 1777 /home/layerprof /perf
USER 1000:1000
WORKDIR /perf
ENTRYPOINT ["/usr/local/bin/profile"]
CMD ["--help"]
