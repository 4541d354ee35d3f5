#!/usr/bin/env bash
# Makes the models that ship in the package, from CamVid and generated streets: about three hours on two CPU cores.
# Stop it at any moment; the same command continues. Usage: scripts/train-camvid.sh CAMVID_FOLDER [LPIPS_WEIGHTS_FOLDER]
set -euo pipefail
cd "$(dirname "$0")/.."
gosvae=${GOSVAE:-.venv/bin/gosvae}
camvid=${1:?usage: scripts/train-camvid.sh CAMVID_FOLDER [LPIPS_WEIGHTS_FOLDER]}
data="camvid:$camvid+streets:180"
lpips=(--lpips lpips-squeeze ${2:+--weights "$2"})
models=src/gosvae/models

"$gosvae" train-expert --data "$data" --set name=expert-camvid --out runs/expert-camvid
mkdir -p "$models/expert-camvid"
cp runs/expert-camvid/{config.json,provenance.json,weights.safetensors} "$models/expert-camvid/"

# Another network, which no codec is trained with.
"$gosvae" train-expert expert-unet --data "$data" --set name=expert-unet-camvid --out runs/expert-unet-camvid
mkdir -p "$models/expert-unet-camvid"
cp runs/expert-unet-camvid/{config.json,provenance.json,weights.safetensors} "$models/expert-unet-camvid/"

"$gosvae" train vqvae --data "$data" --set name=vqvae-camvid --out runs/vqvae-camvid
"$gosvae" export runs/vqvae-camvid "$models/vqvae-camvid"

"$gosvae" train gosvae-finetune --data "$data" --expert embedded "${lpips[@]}" --init "$models/vqvae-camvid" \
    --set name=gosvae-camvid --out runs/gosvae-camvid
"$gosvae" export runs/gosvae-camvid "$models/gosvae-camvid"

"$gosvae" train gosvae-compact --data "$data" --expert embedded "${lpips[@]}" --set name=gosvae-compact-camvid \
    --out runs/gosvae-compact-camvid
"$gosvae" export runs/gosvae-compact-camvid "$models/gosvae-compact-camvid" --eight-bit-decoder

# Context models of their indices: fewer bytes for the same pictures.
"$gosvae" train-entropy gosvae-camvid --data "camvid:$camvid" --steps 4000 --out runs/camvid-context
"$gosvae" export runs/camvid-context "$models/gosvae-camvid"
"$gosvae" train-entropy gosvae-compact-camvid --data "camvid:$camvid" --steps 2500 --out runs/compact-context
"$gosvae" export runs/compact-context "$models/gosvae-compact-camvid" --eight-bit-decoder

# One model for all rates: on two cores first, then on a GPU (there 8.3 minutes on an H200; on two cores, many hours). In the run
# of the released one the first stage was cut after 1494 of its 2500 steps and the second after 2851, with a decoder of
# two and one residual blocks fewer, lowest_price 0.3 and warmup_steps 1000.
common=(--data "$data" --expert embedded "${lpips[@]}" --set name=gosvae-variable-camvid --set stages.0.ramp_steps=1
    --set stages.0.batches.scale=0.25)
"$gosvae" train gosvae-variable --data "camvid:$camvid+streets:90" --expert embedded "${lpips[@]}" \
    --set name=gosvae-variable-camvid --out runs/variable-1
"$gosvae" train gosvae-variable-finetune --init runs/variable-1 --data "$data" --expert embedded "${lpips[@]}" \
    --set name=gosvae-variable-camvid --set stages.0.steps=4200 --out runs/variable-2
"$gosvae" train gosvae-variable-finetune --init runs/variable-2 "${common[@]}" --out runs/variable-3 \
    --set stages.0.steps=4100 --set stages.0.batches.batch_size=16 --set stages.0.batches.crop_height=256 \
    --set stages.0.batches.crop_width=512 --set stages.0.weights.mse=8 --set stages.0.weights.jsd=6 \
    --set stages.0.weights.features=1 --set rate.lowest_price=0.01 --set rate.highest_price=20 \
    --set rate.warmup_steps=300 --set losses.share=0.2 --set perceptual_images=8
# Then, on two cores again, with more weight on the pixels: 21 minutes.
"$gosvae" train gosvae-variable-finetune --init runs/variable-3 "${common[@]}" --out runs/variable-4 \
    --set stages.0.steps=1500 --set stages.0.batches.crop_height=192 --set stages.0.learning_rate=4e-4 \
    --set stages.0.final_rate=0.02 --set stages.0.warmup_steps=50 --set stages.0.ema_decay=0.998 \
    --set stages.0.weights.mse=40 --set stages.0.weights.lpips=2 --set stages.0.weights.jsd=6 \
    --set stages.0.weights.features=1.5 --set stages.0.weights.rate=0.6 --set rate.lowest_price=0.01 \
    --set rate.highest_price=20 --set rate.warmup_steps=1 --set losses.share=0.2 --set perceptual_images=4
"$gosvae" export runs/variable-4 "$models/gosvae-variable-camvid" --eight-bit-decoder
