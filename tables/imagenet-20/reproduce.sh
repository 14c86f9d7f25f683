#!/usr/bin/env bash
# All runs of Tables 3-6 on imagenet-20 at the exact quarter scale, each net from random weights, and a control for scale
# jittering. In a folder with data/:
#
#   python benchmarks/imagenet20.py imagenette2 imagewoof2 photos && vggrepro prepare photos --preset quarter
#   SEEDS=0,1,2 WIDTH=0.125 JOBS=auto tables/imagenet-20/reproduce.sh > tables.md
#
# JOBS nets train or are tested side by side: one a processor or GPU (auto), or so many, on one card too. PRECISION is that
# of every command, and OPTIONS go to every training, such as OPTIONS="--epochs 12 --workers 0". What is done is kept. To work in parts, end each with
# `timeout 460 tables/imagenet-20/reproduce.sh` (8 minutes; exit code 124) and give the same command again, until the code is 0.
# The results without the weights, in files of 16 MiB: vggrepro archive --size 16MiB
set -euo pipefail
trap 'exit 143' TERM  # so that the script waits for the command that a time limit stops, and that saves its work
SEEDS=${SEEDS:-0,1,2} WIDTH=${WIDTH:-0.125} JOBS=${JOBS:-auto} PRECISION=${PRECISION:-auto}
read -ra with <<<"--width $WIDTH --precision $PRECISION ${OPTIONS:-}"

vggrepro reproduce --init delta --seeds "$SEEDS" --jobs "$JOBS" "${with[@]}"

# D trained on at S = 256 for as long as the others train at a new scale: what jitter is worth beside more training
for seed in ${SEEDS//,/ }; do
  runs=runs/seed$seed
  if [ "$seed" = "${SEEDS%%,*}" ]; then runs=runs; fi
  control=runs-control/seed$seed
  vggrepro finetune-scale D --scale 256 --from "$runs/D-256" --runs "$control" --seed "$seed" "${with[@]}"
  vggrepro evaluate --dense --runs "$control" --precision "$PRECISION" >&2
done
