#!/usr/bin/env bash
# GPUs under Slurm, one process per node:
#   sbatch --partition=.. --time=.. launch/slurm.sh --config=FILE.py --workdir=DIR
# from the clone, its environment active and on a disk that all nodes share, as
# DIR is. 120 s before its time is up the run saves and exits with 143; then, and
# when a node is lost (42), the job is queued again and continues. 1 and 2 end it.
#SBATCH --job-name=ealign-demo
#SBATCH --nodes=2
#SBATCH --gpus-per-node=8
#SBATCH --ntasks-per-node=1
#SBATCH --requeue
#SBATCH --signal=B:TERM@120
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
set -uo pipefail
: "${1:?give the flags: --config=FILE.py --workdir=DIR}"
# JAX finds hosts and ranks in Slurm's variables, but would take one GPU a task.
JAX_LOCAL_DEVICE_IDS=$(seq -s, 0 $((${SLURM_GPUS_ON_NODE:-8} - 1)))
export JAX_LOCAL_DEVICE_IDS
job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID} # of an array
job=${job:-$SLURM_JOB_ID}
trap 'scancel --signal=TERM "$job"' TERM # to the tasks, not to this shell
srun --kill-on-bad-exit=1 python -m ealign.launch "$@" &
step=$!
wait "$step"
code=$?
while kill -0 "$step" 2>/dev/null; do # a signal ends a wait early
  wait "$step"
  code=$?
done
state=$(squeue --noheader --jobs="$job" --format=%T) # not if cancelled
if [[ $code =~ ^(42|134|137|143)$ && $state == RUNNING ]] &&
  ((${SLURM_RESTART_COUNT:-0} < ${RESTARTS:-50})); then
  scontrol requeue "$job"
fi
exit "$code"
