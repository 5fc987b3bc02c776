#!/bin/bash
# Measures mailrail beside restic: both push the same synthetic organisation and restore it, in turn, for some rounds.
#
#   benches/restic.sh [MEGABYTES [ROUNDS]]          (1450 and 3 if not given)
#
# Needs restic 0.14 or later, GNU time as /usr/bin/time, and cargo. Everything lies in memory (/dev/shm) if that has room for four times
# the mail, or else in the directory for temporary files: then disks are measured, too. Both repositories are encrypted, both caches are
# cold (restic's is made anew each time), and both tools use all cores.
#
# MAILRAIL and ORGANISATION name binaries built already; without them, both are built here.
#
# A loaded machine halves every figure of time. So read the ratios, which are of one round each; the load is printed beside.
set -euo pipefail

megabytes=${1:-1450}
rounds=${2:-3}
here=$(cd "$(dirname "$0")/.." && pwd)

build() {
    if [[ -z ${MAILRAIL:-} || -z ${ORGANISATION:-} ]]; then
        (cd "$here" && cargo build --release --quiet --features cli,organisation --bin mailrail --example organisation)
        local target=${CARGO_TARGET_DIR:-$here/target}
        MAILRAIL=${MAILRAIL:-$target/release/mailrail}
        ORGANISATION=${ORGANISATION:-$target/release/examples/organisation}
    fi
}

# A directory with room, in memory if possible.
room() {
    local needed=$((megabytes * 4 * 1000)) free
    free=$(df --output=avail -k /dev/shm 2>/dev/null | tail -1 || echo 0)
    if ((free > needed)); then
        mktemp -d /dev/shm/mailrail-restic.XXXXXX
    else
        mktemp -d
    fi
}

# Runs a command and leaves "wall cpu peak" (seconds, seconds, MB) in $measured.
measure() {
    /usr/bin/time -o "$work/time" -f '%e %U %S %M' "$@" >"$work/output" 2>&1 || {
        cat "$work/output" >&2
        return 1
    }
    measured=$(awk 'END { printf "%.2f %.2f %.0f", $1, $2 + $3, $4 / 1000 * 1.024 }' "$work/time")
}

stored() {
    du -sb "$1" | awk '{ printf "%.1f", $1 / 1e6 }'
}

# One line of the table, and of the file that the medians are made of.
record() {
    local round=$1 tool=$2 what=$3 size=$4 wall cpu peak
    read -r wall cpu peak <<<"$measured"
    echo "$round $tool $what $wall $cpu $peak $size" >>"$work/figures"
    printf '%5s  %-8s  %-7s  %8s  %8s  %8s  %10s  %6s\n' \
        "$round" "$tool" "$what" "$wall" "$cpu" "$peak" "$size" "$(cut -d' ' -f1 /proc/loadavg)"
}

same() {
    diff -rq "$work/mail" "$1" >/dev/null || {
        echo "$2 did not restore what it was given" >&2
        exit 1
    }
}

mailrail_round() {
    rm -rf "$work/repository" "$work/restored"
    measure "$MAILRAIL" push "maildir:$work/mail" "$work/repository" --key-file "$work/key"
    record "$1" mailrail push "$(stored "$work/repository")"
    measure "$MAILRAIL" push "maildir:$work/mail" "$work/repository" --key-file "$work/key"
    record "$1" mailrail again "$(stored "$work/repository")"
    measure "$MAILRAIL" restore "$work/repository" "maildir:$work/restored" --key-file "$work/key"
    record "$1" mailrail restore -
    same "$work/restored" mailrail
    rm -rf "$work/repository" "$work/restored"
}

restic_round() {
    export RESTIC_PASSWORD=measured RESTIC_CACHE_DIR=$work/cache
    rm -rf "$work/repository" "$work/restored" "$work/cache"
    restic --quiet --repo "$work/repository" init --repository-version 2
    measure restic --quiet --repo "$work/repository" backup "$work/mail"
    record "$1" restic push "$(stored "$work/repository")"
    measure restic --quiet --repo "$work/repository" backup "$work/mail"
    record "$1" restic again "$(stored "$work/repository")"
    measure restic --quiet --repo "$work/repository" restore latest --target "$work/restored"
    record "$1" restic restore -
    same "$work/restored$work/mail" restic
    rm -rf "$work/repository" "$work/restored" "$work/cache"
}

# The ratios restic / mailrail of each round, and the median of every figure.
summary() {
    awk '
        { round[$1]; what[$3]; wall[$1, $2, $3] = $4; cpu[$1, $2, $3] = $5; peak[$1, $2, $3] = $6; size[$1, $2, $3] = $7 }
        function median(list, count,    i, j, swap) {
            for (i = 2; i <= count; i++)
                for (j = i; j > 1 && list[j - 1] > list[j]; j--) { swap = list[j]; list[j] = list[j - 1]; list[j - 1] = swap }
            return count % 2 ? list[(count + 1) / 2] : (list[count / 2] + list[count / 2 + 1]) / 2
        }
        function ratio(a, b) { return b > 0 ? a / b : 0 }
        END {
            split("push again restore", order, " ")
            split("mailrail restic", tools, " ")
            print "\nrestic / mailrail (above 1: mailrail is better)"
            print "round  what       wall     CPU    peak  stored"
            rounds = 0
            for (r in round) if (r + 0 > rounds) rounds = r + 0
            for (w = 1; w <= 3; w++) {
                what_ = order[w]
                for (r = 1; r <= rounds; r++) {
                    a[r] = ratio(wall[r, "restic", what_], wall[r, "mailrail", what_])
                    b[r] = ratio(cpu[r, "restic", what_], cpu[r, "mailrail", what_])
                    c[r] = ratio(peak[r, "restic", what_], peak[r, "mailrail", what_])
                    d[r] = ratio(size[r, "restic", what_], size[r, "mailrail", what_])
                    printf "%5d  %-7s  %6.2f  %6.2f  %6.2f  %6.2f\n", r, what_, a[r], b[r], c[r], d[r]
                }
                printf "%5s  %-7s  %6.2f  %6.2f  %6.2f  %6.2f\n", "med.", what_, median(a, rounds), median(b, rounds), median(c, rounds), median(d, rounds)
            }
            print "\nmedians   what     wall (s)  CPU (s)  peak (MB)  stored (MB)"
            for (t = 1; t <= 2; t++) for (w = 1; w <= 3; w++) {
                tool = tools[t]; what_ = order[w]
                for (r = 1; r <= rounds; r++) {
                    a[r] = wall[r, tool, what_]; b[r] = cpu[r, tool, what_]; c[r] = peak[r, tool, what_]; d[r] = size[r, tool, what_] + 0
                }
                printf "%-8s  %-7s  %8.2f  %7.2f  %9.0f  %11.1f\n", tool, what_, median(a, rounds), median(b, rounds), median(c, rounds), median(d, rounds)
            }
        }' "$work/figures"
}

build
work=$(room)
trap 'rm -rf "$work"' EXIT
head -c 32 /dev/urandom >"$work/key"
chmod 600 "$work/key"
"$ORGANISATION" "$work/mail" "$megabytes"
echo "$(nproc) cores; $(restic version | cut -d' ' -f1,2); in $(dirname "$work"); load $(cut -d' ' -f1-3 /proc/loadavg)"
echo
printf '%5s  %-8s  %-7s  %8s  %8s  %8s  %10s  %6s\n' round tool what 'wall (s)' 'CPU (s)' 'peak(MB)' 'stored(MB)' load
for ((round = 1; round <= rounds; round++)); do
    mailrail_round "$round"
    restic_round "$round"
done
summary
