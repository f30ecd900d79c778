#!/usr/bin/env bash
# Rents a TPU slice as a queued resource, runs on all its workers, deletes it:
#   PROJECT=.. ZONE=.. launch/tpu_vm.sh --config=FILE.py --workdir=gs://BUCKET/DIR
# from the clone, which is copied to each worker. When a spot slice is taken
# away or a worker is lost, it asks for another: the same command continues the
# run from the bucket. Exit codes 1 and 2 end it. Keep the shell open (tmux).
set -euo pipefail
: "${PROJECT:?set PROJECT to the Google Cloud project}"
: "${ZONE:?set ZONE to a zone that has this TPU, such as us-west4-a}"
: "${1:?give the flags: --config=FILE.py --workdir=gs://BUCKET/DIR}"
JOB="${JOB:-ealign-demo}"
TPU_TYPE="${TPU_TYPE:-v5litepod-16}"
TPU_RUNTIME="${TPU_RUNTIME:-v2-alpha-tpuv5-lite}"
SPOT="${SPOT---spot}" # SPOT= for one on demand
RESTARTS="${RESTARTS:-50}"
printf -v run ' %q' python -m ealign.launch "$@"
prepare='mkdir -p ealign && tar -xzf ealign.tgz -C ealign && cd ealign &&
  python3 -m pip install -q uv && python3 -m uv venv -q --python=3.12 &&
  python3 -m uv pip install -q -e ".[tpu,gcs]"'
tree="${TMPDIR:-/tmp}/$JOB.tgz"
at=(--project="$PROJECT" --zone="$ZONE")
queue() { gcloud compute tpus queued-resources "$@" "${at[@]}"; }
tpu() { gcloud compute tpus tpu-vm "$@" --worker=all --batch-size=all "${at[@]}"; }
state() { queue describe "$JOB" --format='value(state.state)'; }
delete() { queue delete "$JOB" --force --quiet; }
tar -czf "$tree" --exclude={.git,.venv,runs} .
for ((i = 0; i <= RESTARTS; i++)); do
  queue create "$JOB" --node-id="$JOB" --accelerator-type="$TPU_TYPE" \
    --runtime-version="$TPU_RUNTIME" ${SPOT:+"$SPOT"}
  trap delete EXIT # whatever happens from here on, nothing stays rented
  until now=$(state) && [[ $now =~ ACTIVE|FAILED|SUSPEND ]]; do sleep 30; done
  tpu scp "$tree" "$JOB:ealign.tgz" && tpu ssh "$JOB" --command="$prepare" &&
    tpu ssh "$JOB" --command="cd ealign && . .venv/bin/activate &&$run" && exit
  code=$?
  ((code > 2)) || [[ $(state) != ACTIVE ]] || exit "$code"
  delete && trap - EXIT
done
exit "$code"
