#!/usr/bin/env bash
# Tensor parallelism for real beside the emulated one, on a host with two GPUs and no network: minutes, most of them boots.
#
#   PYTHONPATH=/tmp/vllm scripts/real-tp.sh PROFILE OUT [MODEL [HARDWARE [PYTHON]]]
#
# PROFILE is the static program (docs/offline-gpu.md says how to build it). Into OUT come the bundles
# HARDWARE/MODEL/bf16-realtp (an engine of two ranks; its tp2/collectives.csv is what this is for) and HARDWARE/MODEL/bf16 (tp2 emulated
# on one GPU, the same shots), the engines' logs, and what each run printed. Then, anywhere:
#
#   perfcheck tp OUT/HARDWARE/MODEL/bf16-realtp OUT/HARDWARE/MODEL/bf16
set -uo pipefail
profile=$1 out=$2 model=${3:-meta-llama/Llama-3.1-8B} hardware=${4:-H100} python=${5:-python3}
mkdir -p "$out"
# Multicast over NVLink is not to be had in many containers, where asking for it ends in an error or a hang.
export NCCL_NVLS_ENABLE=${NCCL_NVLS_ENABLE:-0} TORCH_SYMM_MEM_DISABLE_MULTICAST=${TORCH_SYMM_MEM_DISABLE_MULTICAST:-1}
export NVSHMEM_DISABLE_NVLS=${NVSHMEM_DISABLE_NVLS:-1}
status=0
for mode in ${MODES:-real emulated}; do
  "$profile" run --driver vllm --python "$python" --tp 2 --tp-mode $mode --model "$model" --hardware "$hardware" --out "$out" \
    --engine-log "$out/$mode.log" --budget "${BUDGET:-150s}" --boot-deadline "${BOOT_DEADLINE:-170s}" --deadline 60s \
    --max-model-len 16384 --plan full --only dense,per_sequence,attention,batches --random-batches 40 \
    --attention-max-kv 4096 --attention-chunk-factor 16 --attention-kv-factor 16 \
    --warmup 1 --iterations 5 --target-error -1 --seed 1 ${EXTRA:-} 2>&1 | tee "$out/$mode.txt" || status=$?
  [ -s "$out/$mode.log" ] && tail -n 400 "$out/$mode.log" >"$out/$mode.tail.log"
done
find "$out" -name '*.csv' -exec wc -l {} +
exit $status
