#!/usr/bin/env bash
# Trains and evaluates all runs of Tables 3-6 on imagenet-20 at the exact quarter scale, each net from random weights, and
# the control for scale jittering. Every step goes on where it was: run the script again after an interruption.
#
#   python benchmarks/imagenet20.py imagenette2 imagewoof2 photos && vggrepro prepare photos --preset quarter
#   SEEDS="0 1 2" WIDTH=0.125 tables/imagenet-20/reproduce.sh            (in the folder with data/)
#
# OPTIONS are added to each training, such as OPTIONS="--precision fp32 --workers 0". PARTS="train evaluate" is the default;
# with either word alone, training and evaluation are two calls.
set -euo pipefail
SEEDS=${SEEDS:-0 1 2} WIDTH=${WIDTH:-0.125} PARTS=${PARTS:-train evaluate} OPTIONS=${OPTIONS:-}
read -ra options <<<"$OPTIONS"

for part in $PARTS; do
  for seed in $SEEDS; do
    runs=runs-seed$seed control=runs-control-seed$seed
    if [ "$part" = train ]; then
      with=(--width "$WIDTH" --seed "$seed" "${options[@]}")
      for net in A B C D E A-LRN B-5x5; do
        vggrepro train $net --init delta --scale 256 --runs "$runs" "${with[@]}"
      done
      for net in C D E; do
        vggrepro train $net --scale 384 --runs "$runs" "${with[@]}"
        vggrepro train $net --scale 256:512 --runs "$runs" "${with[@]}"
      done
      vggrepro finetune-scale D --scale 256:512 --layers fc --runs "$runs" "${with[@]}"
      # D trained on at S = 256 for as long as the others train at a new scale: what jitter is worth beside more training
      vggrepro finetune-scale D --scale 256 --from "$runs/D-256" --runs "$control" "${with[@]}"
    else
      vggrepro evaluate --dense --runs "$runs"
      vggrepro evaluate --center --q 256 --runs "$runs"
      vggrepro evaluate --dense --runs "$control"
      if [ "$seed" = "${SEEDS%% *}" ]; then
        vggrepro evaluate --multicrop --runs "$runs"
      fi
    fi
  done
done
