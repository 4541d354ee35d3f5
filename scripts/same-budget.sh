#!/usr/bin/env bash
# The variable-rate codec against GOS-VAE with r=4 at several sizes of its codebook, each trained for 15,000 steps of 4 crops
# of 128x256, and both with a context model: about two hours on two CPU cores. Stop it at any moment; the same command
# continues. Usage: scripts/same-budget.sh CAMVID_FOLDER LPIPS_WEIGHTS_FOLDER
set -euo pipefail
cd "$(dirname "$0")/.."
gosvae=${GOSVAE:-.venv/bin/gosvae}
usage="usage: scripts/same-budget.sh CAMVID_FOLDER LPIPS_WEIGHTS_FOLDER"
camvid=${1:?$usage}
runs=runs/same-budget
judged=(--data "camvid:$camvid+streets:180" --expert embedded --lpips lpips-squeeze --weights "${2:?$usage}")
# Where both go on, from scripts/train-camvid.sh: ours after 1,494, 2,851 and 4,200 steps (the figures in docs/ were made with
# the weights of revision 38d8703), GOS-VAE after 4,500 of pixels and 2,200, 1,845 and 4,610 of imitation, with 512 codes.
variable=${VARIABLE:-runs/variable-2}
gosvae_512=${GOSVAE_512:-runs/gosvae-3}

# Ours, 8,545 + 6,455 steps. One expert, one perceptual distance, as GOS-VAE has.
"$gosvae" train gosvae-variable-finetune --init "$variable" "${judged[@]}" --set name=variable-15000 --set 'model={}' \
    --set stages.0.steps=6455 --set stages.0.ramp_steps=1 --set stages.0.learning_rate=1e-3 --set stages.0.weights.mse=5 \
    --set stages.0.weights.lpips=2 --set stages.0.weights.jsd=18 --set stages.0.weights.features=4 \
    --set rate.highest_price=40 --set rate.lowest_price=0.003 --set rate.warmup_steps=100 --set losses.share=0 \
    --set perceptual_images=1 --set stages.0.batches.crop_height=128 --set stages.0.batches.crop_width=256 \
    --set stages.0.batches.brightness=0.1 --set stages.0.batches.scale=0.15 --seed 1 --out $runs/variable

# GOS-VAE, 13,155 + 1,845 steps for each size of the codebook. What its context model learns with comes on top.
codecs=()
for size in 4 8 16 32 128 512; do
    "$gosvae" train gosvae-finetune --init "$gosvae_512" "${judged[@]}" --set name=gosvae-k$size \
        --set model.quantizer.codebook_size=$size --set stages.0.steps=1845 --seed 3 --out $runs/gosvae-k$size
    "$gosvae" train-entropy $runs/gosvae-k$size --data "camvid:$camvid" --steps 2000 --out $runs/context-k$size
    codecs+=($runs/context-k$size)
done

"$gosvae" evaluate "${codecs[@]}" --curve gosvae-r4 --anchor gosvae-r4 --sweep $runs/variable gosvae-variable-camvid \
    --data "camvid:$camvid" --pictures --out docs/camvid/same-budget
