#!/usr/bin/env bash
# Makes the judge and the expert that never saw what is kept out (camvid@unseen, idd-lite@unseen), and the codec
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

# An expert to imitate: the common classes of CamVid, IDD-Lite and the generated streets.
"$gosvae" train-expert expert-compact --data "camvid:$camvid@seen+idd-lite:$idd@seen+streets:60" --set name=expert-common \
    --set 'widths=[24, 48, 96, 160]' --set 'blocks=[1, 2, 4]' --set stages.0.steps=1100 --set stages.0.ema_decay=0.995 \
    --set 'stages.0.batches={batch_size: 4, crop_height: 192, crop_width: 256, brightness: 0.3, scale: 0.45, colour: 0.2, blur: 0.8, noise: 0.02}' \
    --seed 1 --out runs/expert-common

# The codec: the decoder of the released one, with a layer at full resolution. Small sets count several times. For the
# released model, the two terms against the lattice were those of revision 34a1afa in the first run, and the second run
# was stopped after 566 of its 1350 steps.
seen="camvid:$camvid@seen+camvid:$camvid@seen+camvid:$camvid@seen+idd-lite:$idd@seen+folder:$kitti+folder:$kitti+streets:120"
judged=(--data "$seen" --expert expert-camvid "${lpips[@]}" --set 'more_perceptual=[stlpips-alex]'
    --set 'more_experts=[expert-unet-camvid, runs/expert-common]' --cache-mib 7000)
"$gosvae" train gosvae-streets --init gosvae-variable-camvid "${judged[@]}" --out runs/streets-1
"$gosvae" train gosvae-streets --init runs/streets-1 "${judged[@]}" --seed 2 --out runs/streets-3 \
    --set 'stages.0.weights={mse: 4.0, lpips: 6.0, jsd: 18.0, features: 4.0, lattice: 150.0, pattern: 2000.0}' \
    --set stages.0.steps=1350 --set stages.0.learning_rate=6e-4 --set stages.0.final_rate=0.02 --set stages.0.ema_decay=0.995
"$gosvae" train gosvae-streets --init runs/streets-3 "${judged[@]}" --seed 3 --out runs/streets-4 \
    --set 'stages.0.weights={mse: 1.0, lpips: 4.0, jsd: 30.0, features: 6.0, lattice: 150.0, pattern: 2000.0}' \
    --set stages.0.steps=600 --set stages.0.learning_rate=5e-4 --set stages.0.final_rate=0.02
# A quarter of the way back to the weights at the start serves networks on a drive that was kept out better.
"${PYTHON:-.venv/bin/python}" scripts/blend.py gosvae-variable-camvid runs/streets-4 --share 0.75 --out runs/streets-75
"$gosvae" export runs/streets-75 "$models/gosvae-streets" --name gosvae-streets --eight-bit-decoder
