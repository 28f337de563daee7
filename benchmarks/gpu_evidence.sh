#!/usr/bin/env bash
# Everything about a GPU that this project claims and cannot show without one, in order of worth, within a time.
#
#   benchmarks/gpu_evidence.sh [FOLDER [PART...]]            on one GPU, offline: 8 minutes, 17 GB in TMPDIR
#   benchmarks/gpu_evidence.sh --small [FOLDER [PART...]]    the same on a CPU with tiny models: shows that it works
#
# Parts: tests maths step_streamed policy_update prefill one_thread long_prompt calls rivals step_zero3 (default: all).
# Each part writes files of its own into FOLDER (default: benchmarks/results/gpu). A part that is done is not done
# again, so that a second call goes on where the time of the first one ended; one that fails does not stop the others.
# Environment: PYTHON (default: .venv/bin/python, otherwise python3), EVIDENCE_SECONDS (default: 480).
# Exit status: 0 all is done, 1 a part failed or there was no time for it.
set -uo pipefail
cd "$(dirname "$0")/.."

SMALL=
if [ "${1:-}" = --small ]; then
    SMALL=1
    shift
fi
case "${1:-}" in -*) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//p}' "$0"; exit 2 ;; esac
FOLDER=$(realpath -m "${1:-benchmarks/results/gpu}")
[ $# -gt 0 ] && shift
PARTS=" $* "
PYTHON=${PYTHON:-$(test -x .venv/bin/python && echo .venv/bin/python || echo python3)}
BUDGET=${EVIDENCE_SECONDS:-480}
MODELS=$(mktemp -d)
trap 'rm -rf "$MODELS"' EXIT
mkdir -p "$FOLDER"
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}

SCORING=(benchmarks/reward_model_scoring.py --model "$MODELS/reward_model")
SCALING=(benchmarks/scaling.py)
UPDATE=(benchmarks/policy_update.py)
PREFILL=(benchmarks/shared_prefill.py)
if [ -n "$SMALL" ]; then
    export CUDA_VISIBLE_DEVICES= TRL_HYBRID_GPU_TESTS_ON=cpu
    SCORING+=(--quick)
    SCALING+=(--quick --shape tiny --steps 1)
    UPDATE+=(--quick)
    PREFILL+=(--quick)
else
    "$PYTHON" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' || {
        echo "There is no GPU that torch can use. With --small it runs on a CPU and shows that it works." >&2
        exit 1
    }
    SCORING+=(--shape acemath-7b --repeats 2)
    SCALING+=(--shape real --steps 3)
    UPDATE+=(--repeats 2)
fi

SECONDS=0
SUMMARY=()
STATUS=0

# part NAME COMMAND...: runs it in what is left of the time; what it says goes into NAME.log.
part() {
    local name=$1 left=$((BUDGET - SECONDS)) began=$SECONDS code
    shift
    [[ "$PARTS" == "  " || "$PARTS" == *" $name "* ]] || return
    if [ -e "$FOLDER/$name.done" ]; then
        SUMMARY+=("$name: done before (remove $name.done to run it again)")
        return
    fi
    if [ "$left" -lt 20 ]; then
        SUMMARY+=("$name: no time left")
        STATUS=1
        return
    fi
    echo "== $name ($left s left)"
    timeout --kill-after=10 "$left" "$PYTHON" "$@" >"$FOLDER/$name.log" 2>&1
    code=$?
    case $code in
    0) SUMMARY+=("$name: done in $((SECONDS - began)) s") && touch "$FOLDER/$name.done" ;;
    124) SUMMARY+=("$name: out of time after $((SECONDS - began)) s") && STATUS=1 ;;
    137) SUMMARY+=("$name: killed after $((SECONDS - began)) s, for time or memory") && STATUS=1 ;;
    *) SUMMARY+=("$name: failed with status $code, see $name.log") && STATUS=1 ;;
    esac
    grep -E "^(target:|[0-9]+ passed|FAILED|ERROR)| passed| failed" "$FOLDER/$name.log" | tail -n 20
}

# Is it right? Kernels, streams and memory as tests.
part tests -m pytest -q -m gpu -p no:cacheprovider tests/reward_model/test_on_gpu.py tests/training/test_attention.py \
    --junitxml "$FOLDER/tests.xml"
# The main claims: against TRL, one row at a time, and resident against streamed, at full size.
part maths "${SCORING[@]}" --sections maths --ways resident streamed trl one_row fp32 --output "$FOLDER/maths.json"
# A whole step of training, with the peak of memory beside the plan.
part step_streamed "${SCALING[@]}" --placements streamed resident --output "$FOLDER/step_streamed"
# The policy's update, TRL's way beside ours: about two minutes, most of them imports.
part policy_update "${UPDATE[@]}" --output "$FOLDER/policy_update.json"
# Generation, a group's prompt computed once or eight times.
part prefill "${PREFILL[@]}" --cases short gsm8k --output "$FOLDER/shared_prefill.json"
# As under accelerate launch, which gives a process one thread: the look-up of embeddings must not show.
part one_thread "${SCORING[@]}" --sections maths --ways streamed --threads 1 --output "$FOLDER/one_thread.json"
part long_prompt "${SCORING[@]}" --sections long_prompt --ways resident streamed one_row --output "$FOLDER/long_prompt.json"
part calls "${SCORING[@]}" --sections scaling --ways resident streamed --output "$FOLDER/calls.json"
# The other ways to keep the weights in host memory, and DeepSpeed's.
part rivals "${SCORING[@]}" --sections maths --ways streamed zero3 cpu_offload group_offload fsdp2 zero3_engine fp32 \
    --output "$FOLDER/rivals.json"
part step_zero3 "${SCALING[@]}" --placements zero3 --output "$FOLDER/step_zero3"

echo
printf '%s\n' "${SUMMARY[@]}" | tee "$FOLDER/summary.txt"
exit $STATUS
