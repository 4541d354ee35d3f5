#!/usr/bin/env bash
# The variable-rate codec against GOS-VAE with r=4 at six sizes of its codebook, after as many training steps, and both with a
# context model: an hour on two CPU cores. Stop it at any moment; the same command continues the training.
# Usage: scripts/same-budget.sh CAMVID_FOLDER LPIPS_WEIGHTS_FOLDER
set -euo pipefail
cd "$(dirname "$0")/.."
gosvae=${GOSVAE:-.venv/bin/gosvae}
usage="usage: scripts/same-budget.sh CAMVID_FOLDER LPIPS_WEIGHTS_FOLDER"
camvid=${1:?$usage}
runs=runs/same-budget
# One expert and one perceptual distance, as GOS-VAE has.
train=("$gosvae" train gosvae-variable-finetune --data "camvid:$camvid+streets:180" --expert embedded
    --lpips lpips-squeeze --weights "${2:?$usage}" --set 'model={}' --set losses.share=0 --set perceptual_images=1
    --set stages.0.ramp_steps=1 --set stages.0.weights.mse=5 --set stages.0.weights.lpips=2 --set stages.0.weights.jsd=18
    --set stages.0.weights.features=4 --set rate.highest_price=40 --set rate.lowest_price=0.003
    --set stages.0.batches.crop_height=128 --set stages.0.batches.crop_width=256
    --set stages.0.batches.brightness=0.1 --set stages.0.batches.scale=0.15)

# From runs/variable-2 of scripts/train-camvid.sh (1,494, 2,851 and 4,200 steps; the figures in docs/ were made with the weights
# of revision 38d8703) to the 15,000 steps that GOS-VAE had, then 2,000 more, as its context models had.
"${train[@]}" --init "${VARIABLE:-runs/variable-2}" --set name=variable-15000 --set stages.0.steps=6455 \
    --set stages.0.learning_rate=1e-3 --set rate.warmup_steps=100 --seed 1 --out $runs/variable-15000
"${train[@]}" --init $runs/variable-15000 --set name=variable-17000 --set stages.0.steps=2000 \
    --set stages.0.learning_rate=6e-4 --set rate.warmup_steps=1 --seed 2 --out $runs/variable-17000

points=(gosvae-k4-camvid gosvae-k8-camvid gosvae-k16-camvid gosvae-k32-camvid gosvae-k128-camvid gosvae-camvid)
"$gosvae" evaluate "${points[@]}" --curve gosvae-r4 --anchor gosvae-r4 --sweep $runs/variable-15000 gosvae-variable-camvid avif \
    --data "camvid:$camvid" --pictures 0 --out docs/camvid/same-budget
"$gosvae" evaluate "${points[@]}" --curve gosvae-r4 --anchor gosvae-r4 --sweep $runs/variable-17000 \
    --data "camvid:$camvid" --pictures 0 --out docs/camvid/same-budget-17000
