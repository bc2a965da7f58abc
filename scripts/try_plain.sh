#!/usr/bin/env bash
# Every command on the example, cut short, as a stranger has them:  bash scripts/try_plain.sh FOLDER-OF-THE-ENVIRONMENT
# For an environment without extras: what needs one must say which. Any traceback fails.
set -euo pipefail
focus=$(cd "$1" && pwd)/bin/focus
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
export OMP_NUM_THREADS=1

# run EXPECTED-STATUS COMMAND...
run() {
    local expected=$1 status=0 start=$SECONDS
    shift
    "$@" >out.log 2>&1 || status=$?
    if [ "$status" != "$expected" ] || grep -q -e Traceback -e Warning out.log; then
        echo "FAILED ($status, expected $expected): ${*/#$focus/focus}"
        cat out.log
        exit 1
    fi
    echo "$((SECONDS - start)) s: focus ${*:2}"
}

# needs EXTRA COMMAND...: refused, with the words that install what is missing
needs() {
    local extra=$1
    shift
    run 2 "$@"
    if ! grep -q "focus-face\[$extra\]" out.log; then
        echo "FAILED: does not say that it needs the extra '$extra': ${*/#$focus/focus}"
        cat out.log
        exit 1
    fi
}

quick=(--scale 0.0005 --data.validation 2 --data.distinct 16)
few=(--faces 2 --subsets general)
run 0 "$focus" doctor
run 0 "$focus" example --out example --size 128 --frames 2
run 0 "$focus" fit example/photos --landmarks example/landmarks.csv --out out/fit --model procedural-small --coarse-steps 1 --fine-steps 2
run 0 "$focus" reconstruct example/photos --landmarks example/landmarks.csv --checkpoint example/network.safetensors --out out/faces
run 0 "$focus" prepare example/photos --landmarks example/landmarks.csv --out out/crops
run 0 "$focus" model example/face.npz --landmarks68 example/landmarks68.txt --save out/new.focusmodel --preview out/face.png
run 0 "$focus" train "${quick[@]}" --out out/run
run 0 "$focus" train "${quick[@]}" --photos example/photos --landmarks example/landmarks.csv --out out/own
run 0 "$focus" demo --scale 0.0005 --test-faces 8 --out out/demo
run 0 "$focus" evaluate masks example/true_masks --truth example/true_masks
run 0 "$focus" evaluate pictures "${few[@]}" --out out/testset
run 0 "$focus" evaluate segmentation "${few[@]}" --out out/evaluation
for file in hand.ply hand.obj hand.glb hand.json hand_mask.png; do
    for folder in fit faces; do
        test -s "out/$folder/$file" || { echo "FAILED: out/$folder/$file is missing or empty"; exit 1; }
    done
done
needs detect "$focus" fit example/photos --out out/found
needs detect "$focus" landmarks example/photos --out out/found
needs evaluate "$focus" evaluate now --scans example/now --images example/now/imagepathsvalidation.txt --predictions mean=example/now/mean_faces --out out/now
needs evaluate "$focus" evaluate misfit example/network.safetensors --faces 2 --test-faces 2 --out out/misfit
printf 'not a model' >face.h5
needs bfm "$focus" model face.h5
