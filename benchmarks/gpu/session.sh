#!/usr/bin/env bash
# Train for long on a machine that is lent for minutes.
#
#     bash benchmarks/gpu/session.sh CARRY OUT [SECONDS]
#
# The first call sets the machine up and starts one chain of trainings in the background, so that nothing waits
# for another command. Every call waits SECONDS (560 by default), or until the chain has ended, and copies to OUT
# what the chain has finished since the last call: at most 8 files. WORK, EPOCHS, STEPS, BACKBONE and MORE
# (arguments of `ebsc run`) change the work, for a rehearsal without a GPU.
set -u
carry=$(realpath "$1") out=$2 seconds=${3:-560}
work=${WORK:-/tmp/ebsc} epochs=${EPOCHS:-350} backbone=${BACKBONE:-resnet18}
read -ra more <<<"${MORE---batch-size 512 --precision bf16 --set compile=true}"
export PYTHONPATH=$PWD:$PWD/plugins:$PWD/cli:$work/site PYTHONUNBUFFERED=1
mkdir -p "$work/out" "$work/home" "$out"

train() { # NAME OBJECTIVE SETTINGS…: one training, its figures, and its features
    python3 benchmarks/gpu/train.py "$1" --work "$work/$1" --out "$work/out" --minutes 60 \
        --held-out "$work/data/cifar10-test.npz" -- --data "$work/data/cifar10-train.npz" --backbone "$backbone" \
        --epochs "$epochs" --objective "$2" --set objective.hidden=1024 --set objective.width=256 \
        --set train.optimizer=sgd --no-report "${more[@]}" "${@:3}" >"$work/home/$1.log" 2>&1
}

chain() {
    python3 -m pip install -q --no-index --no-deps --target "$work/site" "$carry"/*.whl
    rm -rf "$work"/site/ebsc* # the checkout is newer
    python3 benchmarks/gpu/unpack.py "$carry" "$work/data" || return
    # Two trainings at once take 0.7 of the time that they take one after the other.
    train simclr simclr --set train.lr=0.24 --set objective.temperature=0.5 &
    train byol byol &
    wait
    # SENet as published for CIFAR-10, on the features of SimCLR, beside the `energy` of the run.
    python3 -m ebsc_cli cluster "$work/simclr/runs/simclr/features.h5" --coefficients senet \
        --set refine.steps="${STEPS:-50000}" --set clusterer.vectors_per_cluster=1 --set clusterer.power=0 --out "$work/senet" --no-report >"$work/home/senet.log" 2>&1 &&
        cp "$work/senet/metrics.json" "$work/out/senet.json"
}

if [[ ${4-} == chain ]]; then
    chain
    touch "$work/ended"
    exit
fi
if mkdir "$work/started" 2>/dev/null; then
    setsid bash "$0" "$carry" "$out" 0 chain >"$work/home/chain.log" 2>&1 </dev/null &
fi
for ((second = 0; second < seconds; second += 5)); do
    [[ -e $work/ended ]] && break
    sleep 5
done
tail -n 3 "$work"/home/*.log
room=8 waiting=0
touch -d "-5 seconds" "$work/settled" # a file that is younger may not be whole while the chain runs
for file in "$work"/out/*; do
    [[ -f $file && ! -e $work/home/${file##*/} ]] || continue
    if ((room > 0)) && [[ -e $work/ended || $file -ot $work/settled ]]; then
        cp "$file" "$out" && touch "$work/home/${file##*/}"
        ((room--))
    else
        ((waiting++))
    fi
done
if [[ -e $work/ended ]]; then
    ((waiting)) && echo "call again: $waiting files are left" || echo "the chain has ended"
fi
