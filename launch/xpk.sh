#!/usr/bin/env bash
# One xpk workload on a GKE cluster that xpk made (xpk cluster create):
#   PROJECT=.. ZONE=.. CLUSTER=.. launch/xpk.sh --config=FILE.py \
#     --workdir=gs://BUCKET/DIR
# from the clone, which xpk puts into the image. 42 (a host was lost) and 143
# (preempted) restart all hosts, and the same command continues the run from the
# bucket; 1 and 2 (not finite; bad config or data) end it. Look at it, stop it:
#   xpk workload list|delete --project=.. --zone=.. --cluster=.. [--workload=JOB]
set -euo pipefail
: "${PROJECT:?set PROJECT to the Google Cloud project}"
: "${ZONE:?set ZONE to that of the cluster}"
: "${CLUSTER:?set CLUSTER to its name}"
: "${1:?give the flags: --config=FILE.py --workdir=gs://BUCKET/DIR}"
JOB="${JOB:-ealign-demo}"
TPU_TYPE="${TPU_TYPE:-v5litepod-16}"
SPOT="${SPOT---spot}" # SPOT= takes what the cluster has
printf -v run ' %q' python -m ealign.launch "$@"
xpk workload create --project="$PROJECT" --zone="$ZONE" --cluster="$CLUSTER" \
  --workload="$JOB" --tpu-type="$TPU_TYPE" --num-slices=1 ${SPOT:+"$SPOT"} \
  --max-restarts="${RESTARTS:-50}" --restart-on-exit-codes=42,143 \
  --termination-grace-period-seconds=120 \
  --base-docker-image=python:3.12 --script-dir=. \
  --command="pip install -q -e '.[tpu,gcs]' &&$run"
