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
NAME="${NAME:-ealign-demo}"
TYPE="${TYPE:-v5litepod-16}"
RUNTIME="${RUNTIME:-v2-alpha-tpuv5-lite}"
SPOT="${SPOT---spot}" # SPOT= for one on demand
RESTARTS="${RESTARTS:-50}"
printf -v run ' %q' python -m ealign.launch "$@"
prepare='mkdir -p ealign && tar -xzf ealign.tgz -C ealign && cd ealign &&
  python3 -m pip install -q uv && python3 -m uv venv -q --python=3.12 &&
  python3 -m uv pip install -q -e ".[tpu,gcs]"'
tree="${TMPDIR:-/tmp}/$NAME.tgz"
at=(--project="$PROJECT" --zone="$ZONE")
queue() { gcloud compute tpus queued-resources "$@" "${at[@]}"; }
tpu() { gcloud compute tpus tpu-vm "$@" --worker=all --batch-size=all "${at[@]}"; }
state() { queue describe "$NAME" --format='value(state.state)'; }
delete() { queue delete "$NAME" --force --quiet; }
tar -czf "$tree" --exclude={.git,.venv,runs} .
for ((i = 0; i <= RESTARTS; i++)); do
  queue create "$NAME" --node-id="$NAME" --accelerator-type="$TYPE" \
    --runtime-version="$RUNTIME" ${SPOT:+"$SPOT"}
  trap delete EXIT # whatever happens from here on, nothing stays rented
  until now=$(state) && [[ $now =~ ACTIVE|FAILED|SUSPEND ]]; do sleep 30; done
  tpu scp "$tree" "$NAME:ealign.tgz" && tpu ssh "$NAME" --command="$prepare" &&
    tpu ssh "$NAME" --command="cd ealign && . .venv/bin/activate &&$run" && exit
  code=$?
  ((code > 2)) || [[ $(state) != ACTIVE ]] || exit "$code"
  delete && trap - EXIT
done
exit "$code"
