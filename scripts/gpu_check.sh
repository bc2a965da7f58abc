#!/usr/bin/env bash
# Everything that needs a card, in one command of at most nine minutes:
#
#     bash scripts/gpu_check.sh          # results in ${OUT:-out}/gpu_check
#
# Builds for the card that it finds, runs the CUDA kernels beside the CPU kernels (plainly, and under compute-sanitizer's memcheck and
# racecheck), runs the operator tests with FOCUS_REQUIRE_CUDA=1, and times the operators (benchmarks/run.py). Needs no network: python3 with torch, pybind11,
# scikit-build-core, cmake, ninja, pytest and hypothesis, and nvcc. CPU=1 rehearses it on a machine without a card.
#
# Written on a machine without a card: there only the rehearsal has run.
set -uo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
out=$(mkdir -p "${OUT:-$root/out}/gpu_check" && cd "${OUT:-$root/out}/gpu_check" && pwd)
python=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=()

# stage NAME SECONDS COMMAND...: output to NAME.log; a failure is noted, and the next stage runs.
stage() {
    local name=$1 limit=$2 start=$SECONDS
    shift 2
    timeout --kill-after=10 "$limit" "$@" >"$out/$name.log" 2>&1
    local status=$?
    printf '%-12s %s after %d s\n' "$name" "$([ $status = 0 ] && echo passed || echo "FAILED ($status)")" $((SECONDS - start))
    if [ $status != 0 ]; then
        failed+=("$name")
        tail -n 15 "$out/$name.log" | sed 's/^/    /'
    fi
}

if [ "${CPU:-0}" = 1 ]; then
    device=cpu cuda=OFF architecture="" emulation=ON required=0
else
    device=cuda cuda=ON emulation=OFF required=1
    stage card 30 nvidia-smi
    architecture=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -n 1 | tr -d .)
fi

export FOCUS_CUDA=$cuda FOCUS_CUDA_ARCHITECTURES=$architecture
stage wheel 240 "$python" -m pip install --no-build-isolation --no-deps --no-index --target "$work/site" "$root"
stage configure 60 cmake -S "$root" -B "$work/build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DFOCUS_CUDA=$cuda \
    -DFOCUS_EMULATION=$emulation -DFOCUS_CUDA_ARCHITECTURES="$architecture" -DPython_EXECUTABLE="$(command -v "$python")" \
    -Dpybind11_DIR="$("$python" -m pybind11 --cmakedir)"
stage compile 180 cmake --build "$work/build" --target exercise_kernels
stage exercise 60 "$work/build/exercise_kernels"
if [ "$device" = cuda ]; then
    for tool in memcheck racecheck; do
        stage $tool 90 compute-sanitizer --tool $tool --error-exitcode 1 "$work/build/exercise_kernels"
    done
fi
# From the folder of the installed package: in the repository `python -m` would find the sources, which have no compiled module.
cd "$work/site" || exit 1
export PYTHONPATH=$work/site
FOCUS_REQUIRE_CUDA=$required stage tests 240 "$python" -m pytest -q -c "$root/pyproject.toml" --rootdir "$root" -p no:cacheprovider \
    -k "not emulated" "$root"/python_tests/test_ops_*.py
stage timings 180 "$python" "$root/benchmarks/run.py" --device $device --json "$out/timings.json"

if [ ${#failed[@]} != 0 ]; then
    echo "failed: ${failed[*]} (logs in $out)"
    exit 1
fi
echo "all passed; logs and timings in $out"
