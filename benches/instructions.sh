#!/usr/bin/env bash
# Counts the instructions of a push and of a restore of the demo's organisation, sealed, on one thread, and compares them with the last row of the
# table "Instructions" in docs/performance.md. Counts, not times: they are the same on a loaded machine.
#
#   benches/instructions.sh          fails if either is more than 5 % above that row: then mend it, or add a row that says why
#   benches/instructions.sh sealing  what sealing costs: a push without a key beside it
#
# Needs valgrind (its callgrind sees AVX2 and not AVX-512) and cargo. MAILRAIL names a release binary built already; without it, one is built here.
set -euo pipefail
cd "$(dirname "$0")/.."
if [[ -z ${MAILRAIL:-} ]]; then
    cargo build --release --quiet --features cli --bin mailrail
    MAILRAIL=${CARGO_TARGET_DIR:-$PWD/target}/release/mailrail
fi
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
"$MAILRAIL" demo "$place/demo" --quiet

# Millions of instructions of one run of the command.
count() {
    valgrind --tool=callgrind --callgrind-out-file="$place/out" "$MAILRAIL" "$@" --threads 1 --quiet >"$place/log" 2>&1 \
        || { cat "$place/log" >&2; return 1; }
    awk '/Collected/ { printf "%.0f", $NF / 1e6 }' "$place/log"
}

mail=maildir:$place/demo/mail
key=(--key-file "$place/demo/mailrail.key")
push=$(count push "$mail" "$place/sealed" "${key[@]}")
if [[ ${1:-} == sealing ]]; then
    unsealed=$(count push "$mail" "$place/unsealed" --no-encryption)
    awk -v sealed="$push" -v unsealed="$unsealed" 'BEGIN {
        printf "unsealed %d, sealed %d million instructions: sealing costs %+.2f %%\n", unsealed, sealed, 100 * (sealed / unsealed - 1)
    }'
    exit
fi
restore=$(count restore "$place/sealed" "maildir:$place/restored" "${key[@]}")
echo "push $push, restore $restore million instructions"
awk -v push="$push" -v restore="$restore" -F ' *[|] *' '
    /^## / { here = $0 == "## Instructions" }
    here && $3 ~ /^[0-9,]+$/ { gsub(",", ""); kept["push"] = $3; kept["restore"] = $4 }
    function judge(what, counted) {
        printf "%s: %+.2f %% of the %d in docs/performance.md\n", what, 100 * (counted / kept[what] - 1), kept[what]
        return counted > 1.05 * kept[what]
    }
    END {
        if (!("push" in kept)) { print "there are no figures in docs/performance.md"; exit 1 }
        exit judge("push", push) + judge("restore", restore) > 0
    }' docs/performance.md
