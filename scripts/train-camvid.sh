#!/usr/bin/env bash
# Trains the models of the package from CamVid and generated streets. This takes many hours on two CPU cores, and three
# runs need a GPU. All models but gosvae-variable-camvid are written to the package. Stop it at any moment; the same
# command continues it. Usage: scripts/train-camvid.sh CAMVID_FOLDER [LPIPS_WEIGHTS_FOLDER]
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

# Another expert, which `gosvae-variable-camvid` does not imitate.
"$gosvae" train-expert expert-unet --data "$data" --set name=expert-unet-camvid --out runs/expert-unet-camvid
mkdir -p "$models/expert-unet-camvid"
cp runs/expert-unet-camvid/{config.json,provenance.json,weights.safetensors} "$models/expert-unet-camvid/"

"$gosvae" train vqvae --data "$data" --set name=vqvae-camvid --out runs/vqvae-camvid
"$gosvae" export runs/vqvae-camvid "$models/vqvae-camvid"

imitate=(--data "$data" --expert embedded "${lpips[@]}")
"$gosvae" train gosvae-finetune "${imitate[@]}" --init "$models/vqvae-camvid" --set name=gosvae-camvid --out runs/gosvae-1
"$gosvae" train gosvae-finetune "${imitate[@]}" --init runs/gosvae-1 --set name=gosvae-k512 --set stages.0.steps=1845 \
    --seed 1 --out runs/gosvae-2
"$gosvae" train gosvae-finetune "${imitate[@]}" --init runs/gosvae-2 --set name=gosvae-k512 --set stages.0.steps=4610 \
    --seed 2 --out runs/gosvae-3
"$gosvae" train gosvae-finetune "${imitate[@]}" --init runs/gosvae-3 --set name=gosvae-k512 --set stages.0.steps=1845 \
    --seed 3 --out runs/gosvae-4
# The same codec with fewer codes, for other rates.
for size in 4 8 16 32 128; do
    "$gosvae" train gosvae-finetune "${imitate[@]}" --init runs/gosvae-3 --set name=gosvae-k$size \
        --set model.quantizer.codebook_size=$size --set stages.0.steps=1845 --seed 3 --out runs/gosvae-k$size
    "$gosvae" train-entropy runs/gosvae-k$size --data "camvid:$camvid" --steps 2000 --out runs/context-k$size
    "$gosvae" export runs/context-k$size "$models/gosvae-k$size-camvid" --name gosvae-k$size-camvid
done

"$gosvae" train gosvae-compact --data "$data" --expert embedded "${lpips[@]}" --set name=gosvae-compact-camvid \
    --out runs/gosvae-compact-camvid
"$gosvae" export runs/gosvae-compact-camvid "$models/gosvae-compact-camvid" --eight-bit-decoder

# Context models of their indices, which need fewer bytes for the same pictures.
"$gosvae" train-entropy runs/gosvae-4 --data "camvid:$camvid" --steps 4000 --out runs/camvid-context
"$gosvae" export runs/camvid-context "$models/gosvae-camvid" --name gosvae-camvid
"$gosvae" train-entropy gosvae-compact-camvid --data "camvid:$camvid" --steps 2500 --out runs/compact-context
"$gosvae" export runs/compact-context "$models/gosvae-compact-camvid" --eight-bit-decoder

# One model for all rates: first on two cores, then on a GPU, with 24 channels. For the released model, the first
# stage was cut after 1494 of its 2500 steps and the second after 2851, with a decoder of two and one residual blocks fewer,
# lowest_price 0.3 and warmup_steps 1000.
judged=(--expert embedded "${lpips[@]}" --set name=gosvae-variable-camvid)
narrow=("${judged[@]}" --set 'model={}' --set balance_classes=true --set stages.0.final_rate=0.01 --set stages.0.weights.features=0.5)
"$gosvae" train gosvae-variable --data "camvid:$camvid+streets:90" "${judged[@]}" --out runs/variable-1
"$gosvae" train gosvae-variable-finetune --init runs/variable-1 --data "$data" "${narrow[@]}" --out runs/variable-2 \
    --set stages.0.steps=4200 --set stages.0.ema_decay=0.999 --set stages.0.learning_rate=1e-3 --set stages.0.weights.mse=5 --set stages.0.weights.lpips=1 \
    --set stages.0.weights.jsd=4 --set stages.0.weights.rate=0.3 --set rate.lowest_price=0.06 --set rate.highest_price=15 \
    --set rate.warmup_steps=3000 --set erasures.share=0 --set stages.0.batches.scale=0.15 --set stages.0.batches.crop_height=128 \
    --set stages.0.batches.crop_width=256
"$gosvae" train gosvae-variable-finetune --init runs/variable-2 --data "$data" "${narrow[@]}" --out runs/variable-3 \
    --set stages.0.ramp_steps=1 --set stages.0.steps=4100 --set stages.0.ema_decay=0.999 --set stages.0.learning_rate=1e-3 --set stages.0.weights.mse=8 \
    --set stages.0.weights.lpips=1 --set stages.0.weights.jsd=6 --set stages.0.weights.features=1 \
    --set stages.0.weights.rate=0.3 --set rate.lowest_price=0.01 --set rate.highest_price=20 --set rate.warmup_steps=300 \
    --set erasures.share=0.2 --set perceptual_images=8 --set stages.0.batches.batch_size=16 \
    --set stages.0.batches.crop_height=256 --set stages.0.batches.crop_width=512
"$gosvae" train gosvae-variable-finetune --init runs/variable-3 --data "$data" "${narrow[@]}" --out runs/variable-4 \
    --set stages.0.ramp_steps=1 --set stages.0.steps=1500 --set stages.0.learning_rate=4e-4 --set stages.0.final_rate=0.02 \
    --set stages.0.warmup_steps=50 --set stages.0.weights.mse=40 --set stages.0.weights.lpips=2 --set stages.0.weights.jsd=6 \
    --set stages.0.weights.features=1.5 --set rate.lowest_price=0.01 --set rate.highest_price=20 --set rate.warmup_steps=1 \
    --set erasures.share=0.2 --set perceptual_images=4 --set stages.0.batches.crop_height=192 \
    --set stages.0.batches.crop_width=256

# Two more experts, which are imitated beside the first.
"$gosvae" train-expert --data "$data" --set name=expert-b --set 'widths=[24, 48, 96, 160]' --set 'blocks=[1, 2, 4]' \
    --set stages.0.steps=1500 --set stages.0.batches.brightness=0.1 --seed 1 --out runs/expert-b
"$gosvae" train-expert --data "$data" --set name=expert-c --set 'widths=[48, 64, 128, 128]' --set 'blocks=[1, 1, 2]' \
    --set stages.0.steps=1200 --set stages.0.batches.brightness=0.05 --seed 2 --out runs/expert-c

# On a GPU again (10.8 minutes on an H200), with twice the channels: whole frames, three experts, two perceptual distances.
# For the released model, the second of these two runs was stopped after 1045 of 1072 steps; its average was kept.
wide=("${judged[@]}" --set 'more_perceptual=[stlpips-alex]' --set stages.0.ramp_steps=1)
frames=("${wide[@]}" --set 'model.context.first_levels=[0, 0, 0, 0, 64, 64, 96, 96, 128, 128, 160, 160]'
    --set rate.lowest_price=0.04 --set 'more_experts=[runs/expert-b, runs/expert-c]' --set perceptual_images=8
    --set stages.0.weights.jsd=6 --set stages.0.weights.features=2 --set stages.0.batches.batch_size=16
    --set stages.0.batches.crop_height=256 --set stages.0.batches.crop_width=512)
"$gosvae" train gosvae-variable-finetune --init runs/variable-4 --data "$data" "${frames[@]}" --out runs/variable-5 \
    --set stages.0.steps=2937 --set stages.0.learning_rate=1e-3 --set rate.warmup_steps=400
"$gosvae" train gosvae-variable-finetune --init runs/variable-5 --data "$data" "${frames[@]}" --out runs/variable-6 \
    --set stages.0.steps=1072 --set stages.0.learning_rate=4e-4 --set rate.warmup_steps=1 --seed 1
# Then, on two cores, with twice the weight of the imitation. The released model had four more runs after this one. They
# used recipe keys that are no longer in the package: `finer` (finer quantizer steps at high levels), `wake` (dead features
# of the encoder are revived) and `new_from` (channels of high levels start again). Revision 53069a1 of this script has all
# commands of the released weights. The result of this script stays in runs/ and does not replace the released model.
"$gosvae" train gosvae-variable-finetune --init runs/variable-6 --data "$data" "${wide[@]}" --out runs/variable-7 \
    --set stages.0.steps=2350 --set rate.warmup_steps=1 --set 'more_experts=[runs/expert-b]' --seed 2
"$gosvae" export runs/variable-7 runs/gosvae-variable-camvid --eight-bit-decoder
