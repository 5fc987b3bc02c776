#!/bin/bash
# What sealing costs: instructions of a sealed push beside those of an unsealed one, of the same synthetic organisation, counted by callgrind.
# Counts, not times: they are the same on a loaded machine.
#
#   benches/sealing.sh
#
# Needs valgrind, and cargo. MAILRAIL names a release binary built already; without it, one is built here.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
if [[ -z ${MAILRAIL:-} ]]; then
    (cd "$here" && cargo build --release --quiet --features cli --bin mailrail)
    MAILRAIL=${CARGO_TARGET_DIR:-$here/target}/release/mailrail
fi
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
"$MAILRAIL" demo "$place/demo" --quiet

# Instructions of one push of the demo's organisation.
count() {
    local repository=$1
    shift
    valgrind --tool=callgrind --callgrind-out-file="$place/out" \
        "$MAILRAIL" push "maildir:$place/demo/mail" "$repository" --threads 1 --quiet "$@" >"$place/log" 2>&1 \
        || { cat "$place/log" >&2; return 1; }
    awk '/Collected/ { print $NF }' "$place/log"
}

unsealed=$(count "$place/unsealed" --no-encryption)
sealed=$(count "$place/sealed" --key-file "$place/demo/mailrail.key")
awk -v sealed="$sealed" -v unsealed="$unsealed" 'BEGIN {
    printf "unsealed %.2f, sealed %.2f thousand million instructions: sealing costs %+.2f %%\n", unsealed / 1e9, sealed / 1e9, 100 * (sealed / unsealed - 1)
}'
