#!/usr/bin/env bash
# Makes the judge and the experts that never saw what is kept out (camvid@unseen, idd-lite@unseen), and the codec
# gosvae-streets. Stop it at any moment; the same command continues.
# Usage: scripts/train-streets.sh CAMVID_FOLDER IDD_LITE_FOLDER KITTI_FOLDER [LPIPS_WEIGHTS_FOLDER]
set -euo pipefail
cd "$(dirname "$0")/.."
gosvae=${GOSVAE:-.venv/bin/gosvae}
camvid=${1:?usage: scripts/train-streets.sh CAMVID_FOLDER IDD_LITE_FOLDER KITTI_FOLDER [LPIPS_WEIGHTS_FOLDER]}
idd=${2:?the folder of IDD-Lite is missing}
kitti=${3:?the folder of KITTI frames is missing}
lpips=(--lpips lpips-squeeze ${4:+--weights "$4"})
models=src/gosvae/models

# The judge, another architecture on other labels. No codec imitates it. At this size the grain of the photos is there.
"$gosvae" train-expert expert-dense --data "idd-lite:$idd@seen" --resize 290x410 --set name=expert-idd --out runs/expert-idd
mkdir -p "$models/expert-idd"
cp runs/expert-idd/{config.json,provenance.json,weights.safetensors} "$models/expert-idd/"

# Experts to imitate: CamVid's 11 classes, and the common classes of CamVid, IDD-Lite and the generated streets.
"$gosvae" train-expert expert-compact --data "camvid:$camvid@seen+streets:60" --set name=expert-seen \
    --set stages.0.steps=1000 --set stages.0.batches.crop_height=192 --set stages.0.batches.scale=0.35 --out runs/expert-seen
"$gosvae" train-expert expert-unet --data "camvid:$camvid@seen+idd-lite:$idd@seen+streets:60" --set name=expert-common \
    --set stages.0.steps=2000 --set stages.0.batches.crop_height=192 --set stages.0.batches.scale=0.45 --seed 1 \
    --out runs/expert-common

# The codec: the decoder of the released one, with a layer at full resolution, on all of these images and drives.
"$gosvae" train gosvae-streets --init gosvae-variable-camvid --expert runs/expert-seen "${lpips[@]}" \
    --data "camvid:$camvid@seen+idd-lite:$idd@seen+folder:$kitti+streets:60" \
    --set 'more_experts=[runs/expert-common]' --set 'more_perceptual=[stlpips-alex]' --out runs/streets-1
