#!/usr/bin/env bash
# All runs of Tables 3-6 on imagenet-20 at the exact quarter scale, each net from random weights, and a control for scale
# jittering. In a folder with data/:
#
#   python benchmarks/imagenet20.py imagenette2 imagewoof2 photos && vggrepro prepare photos --preset quarter
#   SEEDS=0,1,2 WIDTH=0.25 JOBS=16 tables/imagenet-20/reproduce.sh > tables.md      (--multicrop: for every net)
#
# JOBS nets are trained or tested side by side: one a processor or GPU (auto), or so many, on one card too. PRECISION holds
# for every command. INIT names the first weights (looks-linear, as in quarter/; or dirac). OPTIONS go to every training,
# such as OPTIONS="--epochs 12 --workers 0". VGGREPRO is the program, such as VGGREPRO="python -m vggrepro".
#
# What is done is kept. To work in calls of eight minutes, give `timeout 460 tables/imagenet-20/reproduce.sh` again until
# its exit code is no longer 124. The results without the weights: vggrepro archive --size 16MiB
set -euo pipefail
trap 'exit 143' TERM  # after the command at work has saved its state
SEEDS=${SEEDS:-0,1,2} WIDTH=${WIDTH:-0.25} JOBS=${JOBS:-auto} PRECISION=${PRECISION:-auto} INIT=${INIT:-looks-linear}
read -ra with <<<"--width $WIDTH --precision $PRECISION ${OPTIONS:-}"
read -ra program <<<"${VGGREPRO:-vggrepro}"

"${program[@]}" reproduce --init "$INIT" --seeds "$SEEDS" --jobs "$JOBS" "${with[@]}" "$@"

# D trained on at S = 256 for as long as the others train at a new scale: what jitter is worth beside more training
for seed in ${SEEDS//,/ }; do
  runs=runs/seed$seed
  if [ "$seed" = "${SEEDS%%,*}" ]; then runs=runs; fi
  control=runs-control/seed$seed
  "${program[@]}" finetune-scale D --scale 256 --from "$runs/D-256" --runs "$control" --seed "$seed" "${with[@]}"
  "${program[@]}" evaluate --dense --runs "$control" --precision "$PRECISION" >&2
done
