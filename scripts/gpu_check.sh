#!/usr/bin/env bash
# Everything that needs a card, in one command of at most 480 seconds:
#
#     bash scripts/gpu_check.sh          # results in ${OUT:-out}/gpu_check: at most ten files
#
# Each stage has its own limit, writes as it goes, and a failure ends no other stage; what is left of the time is shared by the last ones. Results first:
# the tests of the operators on the card, the card's bits beside those of the CPU kernels, again, in unclean memory, on a second stream, in a captured graph,
# compiled; the kernels alone under compute-sanitizer. Then times (benchmarks/on_card.py), and iterations of training (benchmarks/bench_training.py).
#
# Needs no network: python3 with torch, pybind11, scikit-build-core, cmake, ninja, pytest and hypothesis, and nvcc; opcheck needs expecttest for some versions
# of torch. To save time there:
#     WHEEL=FILE        a wheel built elsewhere, with kernels for this card (focus doctor says which); else, or where it does not work, it is built here
#     KERNELS=FILE      exercise_kernels, built elsewhere
#     NVDIFFRAST=FOLDER its sources, to be built and timed beside ours
#     COMMIT=TEXT       where the sources are no repository
#     QUICK=1           tiny inputs in benchmarks/on_card.py: does it run?
# PYTHONPATH is kept. CPU=1 rehearses it on a machine without a card, with the emulated kernels.
set -uo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
out=$(mkdir -p "${OUT:-$root/out}/gpu_check" && cd "${OUT:-$root/out}/gpu_check" && pwd)
python=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
last=465  # a stage that does not end when it is told to is killed 5 s later, and the rest takes seconds on a busy machine
failed=()
cuda=ON emulation=OFF device=cuda tests=120
[ "${CPU:-0}" = 1 ] && cuda=OFF emulation=ON device=cpu tests=240  # which build the emulated kernels for themselves

# stage NAME SECONDS FILE COMMAND...: what it prints goes to the end of FILE. Returns its status; no stage begins after the time is over.
stage() {
    local name=$1 limit=$2 file=$out/$3 begin=$SECONDS
    shift 3
    [ $((last - begin)) -lt "$limit" ] && limit=$((last - begin))
    if [ "$limit" -lt 5 ]; then
        echo "$name: no time left" | tee -a "$out/stages.txt"
        failed+=("$name")
        return 1
    fi
    echo "== $name" >>"$file"
    timeout --kill-after=5 "$limit" "$@" >>"$file" 2>&1
    local status=$?
    [ $status = 0 ] || failed+=("$name")
    printf '%-12s %s after %d s\n' "$name" "$([ $status = 0 ] && echo passed || echo "FAILED ($status)")" $((SECONDS - begin)) | tee -a "$out/stages.txt"
    [ $status = 0 ] || tail -n 12 "$file" | sed 's/^/    /'
    return $status
}

on_card() {
    local name=$1 limit=$2 file=$3
    stage "$name" "$limit" log.txt "$python" "$root/benchmarks/on_card.py" "$name" --device $device --out "$out/$file" ${QUICK:+--quick}
}

echo "commit ${COMMIT:-$(git -C "$root" describe --always --dirty 2>/dev/null || echo unknown)}, $(date -u +%FT%TZ)" | tee "$out/stages.txt"
if [ $device = cuda ]; then
    stage card 20 log.txt nvidia-smi
    architecture=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -n 1 | tr -d .)
fi
export FOCUS_CUDA=$cuda FOCUS_CUDA_ARCHITECTURES=${architecture:-auto}
export PYTHONPATH=$work/site${PYTHONPATH:+:$PYTHONPATH}
cd "$work" || exit 1  # in the repository Python would find the sources, which have no compiled module

try="import torch; from focus import ops; ops.sh_shading(torch.zeros(1, 3, 3, device='$device'), torch.ones(1, 3, 3, device='$device'), torch.ones(1, 3, 9, device='$device'))"
if [ -n "${WHEEL:-}" ]; then
    stage carried 30 log.txt "$python" -m pip install --quiet --no-deps --no-index --target "$work/site" "$WHEEL"
    timeout --kill-after=5 60 "$python" -c "$try" >>"$out/log.txt" 2>&1 || rm -rf "$work/site"
fi
if [ ! -d "$work/site" ]; then
    stage build 200 log.txt "$python" -m pip install --no-build-isolation --no-deps --no-index --target "$work/site" "$root"
    stage call 30 log.txt "$python" -c "$try"
fi

on_card about 30 about.jsonl
on_card check 80 check.jsonl
stage tests $tests tests.txt env FOCUS_REQUIRE_CUDA=$([ $device = cuda ] && echo 1 || echo 0) "$python" -m pytest -q -c "$root/pyproject.toml" --rootdir "$root" \
    -p no:cacheprovider --device $([ $device = cuda ] && echo cuda || echo emulated) "$root"/python_tests/test_ops_*.py
on_card times 90 times.jsonl

kernels=${KERNELS:-$work/build/exercise_kernels}
if [ ! -x "$kernels" ]; then
    kernels=$work/build/exercise_kernels
    # pybind11 is asked within the stage, where its time counts.
    stage configure 30 log.txt bash -c 'cmake "$@" -Dpybind11_DIR="$("$0" -m pybind11 --cmakedir)"' "$(command -v "$python")" \
        -S "$root" -B "$work/build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DFOCUS_CUDA=$cuda -DFOCUS_EMULATION=$emulation \
        -DFOCUS_CUDA_ARCHITECTURES="$FOCUS_CUDA_ARCHITECTURES" -DPython_EXECUTABLE="$(command -v "$python")"
    stage compile 100 log.txt cmake --build "$work/build" --target exercise_kernels
fi
stage exercise 30 sanitizers.txt "$kernels"
if [ $device = cuda ]; then
    for tool in memcheck racecheck synccheck initcheck; do
        stage $tool 30 sanitizers.txt compute-sanitizer --tool $tool --error-exitcode 1 "$kernels"
    done
fi
if [ -n "${NVDIFFRAST:-}" ] && [ -n "${architecture:-}" ]; then
    TORCH_CUDA_ARCH_LIST=${architecture:0:-1}.${architecture: -1} stage nvdiffrast 90 log.txt "$python" -m pip install --quiet --no-build-isolation --no-deps \
        --no-index --target "$work/site" "$NVDIFFRAST"
fi
on_card rivals 60 rivals.jsonl
# Iterations of training, their graphs among them; it needs what pip installs with FOCUS (Pillow, safetensors, rich, tyro).
if "$python" -c "import PIL, safetensors, rich, tyro" 2>>"$out/log.txt"; then
    stage training 100 training.txt "$python" "$root/benchmarks/bench_training.py" --device $device --seconds 2 --json "$out/training.json" \
        $([ $device = cuda ] && [ -z "${QUICK:-}" ] && echo --preset paper || echo --quick)
fi

echo
cat "$out"/times.jsonl "$out"/rivals.jsonl 2>/dev/null | cut -c1-220
if [ ${#failed[@]} != 0 ]; then
    echo "failed: ${failed[*]} (results in $out)"
    exit 1
fi
echo "all passed; results in $out"
