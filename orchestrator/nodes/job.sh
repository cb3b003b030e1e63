#!/bin/sh
# The node's side of a job: POSIX sh, nothing else. docs/jobs.md tells the story.
#
#   job.sh start  WORKDIR ID REBUILD REQUEST TIMEOUT LOG_LIMIT LOCK SLOTS SHELL   attach to the job, or start an attempt
#   job.sh run    WORKDIR ID GENERATION TIMEOUT LOG_LIMIT LOCK SLOTS SHELL   the attempt itself, detached
#   job.sh guard  WORKDIR ID LEADER TIMEOUT LOG_LIMIT           end the attempt at its deadline, or when it floods its log
#   job.sh state  WORKDIR ID                                    what is known, as NAME=VALUE lines
#   job.sh list   WORKDIR -                                     the same for every job; each begins with job=ID
#   job.sh queue  WORKDIR ID ATTEMPT FROM                       the log from a byte on, while it waits for the host
#   job.sh follow WORKDIR ID ATTEMPT FROM                       the log from a byte on, until the state changes
#   job.sh rest   WORKDIR ID ATTEMPT FROM                       the log from a byte on, as it is now
#   job.sh cancel WORKDIR ID ATTEMPT                            end the whole tree; prints who survived
#   job.sh tidy   WORKDIR - MINUTES FREE_KB                     remove what is older, and what is needed for that room
#   job.sh unpack WORKDIR DIGEST PART SHA256 [BASE]             a pushed bundle becomes sources/DIGEST
#   job.sh hash   WORKDIR ID ATTEMPT NAME                       size and SHA-256 of a delivered binary
#   job.sh cat    WORKDIR ID ATTEMPT NAME FROM                  its bytes, from that one on
#   job.sh pack   WORKDIR ID ATTEMPT NAME FROM                  the same after a line: gzip, compressed by it, or plain
#
# Only run and guard have the folder of the job among their arguments, so a process that names it
# belongs to the job.

set -u

PROC=/proc
VMSTAT=/proc/vmstat
GRACE_SECONDS=5
# What was used within so many minutes is spared: somebody may be about to use it again.
SPARED_MINUTES=60
# So often a lock may turn out unwritable before a job gives it up.
MAX_UNWRITABLE=20

main() {
    PATH=/usr/bin:/bin:/usr/sbin:/sbin:/usr/local/bin:/usr/pkg/bin:/opt/homebrew/bin
    # `ps` prints start times in the language and the zone of whoever asks.
    LC_ALL=C TZ=UTC0
    export PATH LC_ALL TZ
    umask 077
    verb=$1 workdir=$2 id=$3
    shift 3
    dir=$workdir/jobs/$id
    find_boot
    keep=
    case $verb in
    start) start "$@" ;;
    run) run "$@" ;;
    guard) guard "$@" ;;
    state) state ;;
    list) list ;;
    queue | follow) follow "$@" ;;
    rest) rest "$@" ;;
    cancel) cancel "$@" ;;
    tidy) tidy "$@" ;;
    unpack) unpack "$@" ;;
    hash) delivered "$1" "$2" && printf '%s %s\n' "$(size_of "out/$2")" "$(hash_of "out/$2")" ;;
    cat) delivered "$1" "$2" && from "$3" "out/$2" ;;
    pack) delivered "$1" "$2" && pack "$3" "out/$2" ;;
    *) fail "no such verb: $verb" ;;
    esac
}

fail() {
    printf '%s\n' "$*" >&2
    exit 1
}

# --- start -------------------------------------------------------------------------------------

start() {
    note_use
    cd "$dir" || exit
    # Whoever is second waits for the few milliseconds of the first, then finds its job running.
    take_turn "$dir/start.lock" || fail "cannot write to $dir: $(room_in .)"
    evaluate is_mine
    read_value request
    if [ "$value" = "$2" ] && [ "$job_state" != never ]; then
        # It was made, and the link was lost before that could be told.
        release "$dir/start.lock"
        printf 'started %s\n' "$attempt"
        return
    fi
    case $job_state/$status/$1 in
    queued/* | running/* | finished/0/0)
        release "$dir/start.lock"
        printf 'attached %s\n' "$attempt"
        return
        ;;
    esac
    if ! new_attempt "$2" "$3" "$4"; then
        no_room=$(room_in .)
        rm -f reserve
        fail "cannot write to $dir: $no_room"
    fi
    printf 'started %s\n' "$attempt"
    shift 2
    # The process stays the same, so the start lock stays held until `run` has said who it is.
    exec "$5" "$dir/job.sh" run "$workdir" "$id" "$generation" "$@" </dev/null >>"$dir/log" 2>&1
}

# take_turn LOCK: waits for its holder; false when nobody can hold it, for want of room.
take_turn() {
    turn_polls=0
    turn_unwritable=0
    until acquire "$1" -; do
        turn_polls=$((turn_polls + 1))
        turn_unwritable=$((turn_unwritable + unwritable))
        [ "$turn_unwritable" -lt 5 ] || return
        [ "$turn_polls" -lt 150 ] || fail "whoever holds $1 does not come to an end"
        pause
    done
}

# note_use: what is fresh is spared by whoever tidies up; the lock keeps both from a half-way look.
# Without room for it there is none for a new attempt either, and a job that runs is spared anyway.
note_use() {
    turn=
    ! take_turn "$workdir/use.lock" || turn=$generation
    mkdir -p "$dir" || fail "cannot make $dir: $(room_in "$workdir")"
    touch_use "$dir" "${used_source-}" "${used_target-}"
    [ -z "$turn" ] || release "$workdir/use.lock"
}

# touch_use JOB SOURCE TARGET
touch_use() {
    touch "$1/last_use" 2>/dev/null
    # What is not there must not be made: it would look as if it were.
    [ ! -e "$2.complete" ] || touch -c "$2.complete" 2>/dev/null
    [ ! -d "$3" ] || touch "$3/.last_use" 2>/dev/null
    return 0
}

# new_attempt REQUEST TIMEOUT LOG_LIMIT
new_attempt() {
    [ -z "${used_source-}" ] || [ -d "$used_source" ] ||
        fail "the source $used_source is gone: it has to be brought there again"
    if [ -n "$attempt" ]; then
        # What a killed wrapper left behind would build into the same folders.
        stop_tree "$(group_of_old_attempt)"
        [ -z "$found" ] || fail "processes of the last attempt cannot be ended:$found"
    fi
    # Only moved away: to remove it takes its time, and others wait for this one's turn to end.
    [ ! -e work ] || mv work ".work.$$" || return
    # Given back at the end, so that a build that fills the disk cannot keep its end from being noted.
    make_reserve || {
        # It may be what fills the disk, and nothing that is known of that attempt is in it.
        remove_tree .work.*
        make_reserve || return
    }
    case $attempt in
    '') attempt=0 ;;
    *) set_aside "$attempt" || return ;;
    esac
    attempt=$((attempt + 1))
    remove_tree out
    mkdir out work || return
    if [ -e alive ] || [ -e queue ]; then rm -f alive queue || return; fi
    mkfifo alive queue || return
    prepare deadline "$2" && prepare flooded "$3" && prepare cancelled 1 && prepare terminated 1 ||
        return
    put cookie "ORCHESTRATOR_OUT=$dir/out" && write_payload && : >log &&
        put request "$1" && put attempt "$attempt"
}

make_reserve() {
    dd if=/dev/urandom of=reserve bs=1024 count=64 2>/dev/null
}

# remove_tree FOLDER...: those too in which nobody may write; to look first is faster than rm.
remove_tree() {
    [ $# -gt 1 ] || [ -e "$1" ] || [ -L "$1" ] || return 0
    rm -rf "$@" 2>/dev/null && return
    chmod -R u+rwx "$@" 2>/dev/null
    rm -rf "$@" 2>/dev/null
}

# prepare NAME TEXT: what `mark` needs; nobody looks at it before, so it may be half-way there.
prepare() {
    { printf '%s\n' "$2" >".$1"; } 2>/dev/null
}

# mark NAME: notes what was prepared for it; a full disk has room for another name.
mark() {
    mv -f ".$1" "$1" 2>/dev/null || put "$1" 1
}

# `exit` goes first: an archive that is cut short must never look like a success.
set_aside() {
    mkdir -p "old/$1" || return
    for aside_name in exit pid boot start_time started deadline flooded cancelled terminated \
        undelivered unable clock guard strain took log script; do
        [ ! -e "$aside_name" ] || mv -f "$aside_name" "old/$1/" || return
    done
}

# --- run ---------------------------------------------------------------------------------------

run() {
    trap '' HUP
    terminated=
    # A shutdown, or someone's kill: the build below dies of it, and the end has to say why.
    trap 'terminated=1' TERM INT
    cd "$dir" || exit
    # Readers of these pipes are told of the end, even of kill -9, by the kernel.
    exec 3<>alive 4<>queue
    unable=
    undelivered=
    strain=
    took=
    is_full=
    left_behind=
    if ! note_process; then
        unable="the job's folder cannot be written: $(room_in .)"
        rm -f reserve
        note_process || exit
    fi
    generation=$1
    release start.lock
    remove_tree .work.*
    shell=$6

    job_source=- job_target=-
    [ ! -e uses ] || read -r job_source job_target <uses
    target_turn=
    slot=
    # Whoever waits for the folder does not keep a place of the host from others meanwhile.
    [ -n "$unable" ] || wait_for_target
    [ -n "$unable" ] || wait_for_host "$4" "$5"
    if [ -n "$unable" ]; then
        status=1
    elif is_wanted; then
        build "$2" "$3"
    else
        status=143
    fi
    [ -z "$terminated" ] || mark terminated
    [ "$status" != 0 ] || was_ended || deliver
    # Others need the room, and what such a build has left is good for nothing.
    [ -z "$is_full" ] || remove_tree work
    # Not ours to give back, while something of ours still uses the host.
    if [ -z "$left_behind" ]; then
        [ -z "$slot" ] || release "$locks/$slot"
        generation=$target_turn
        [ -z "$target_turn" ] || release "$job_target.lock/1"
    fi
    rm -f reserve
    touch_use . "$job_source" "$job_target"
    note_end
}

# was_ended: by one of us.
was_ended() {
    [ -e deadline ] || [ -e flooded ] || [ -e cancelled ]
}

note_process() {
    look_up_start $$
    put boot "$boot" && put start_time "$start_of" && put pid $$
}

note_end() {
    [ -z "$strain" ] || put strain "$strain"
    [ -z "$took" ] || put took "$took"
    [ -z "$unable" ] || put unable "$unable"
    [ -z "$undelivered" ] || put undelivered "$undelivered"
    if [ -e deadline ]; then
        end="124 deadline"
    elif [ -e flooded ]; then
        end="$status flooded"
    elif [ -e cancelled ]; then
        end="$status cancelled"
    elif [ -n "$unable" ]; then
        end="1 unable"
    elif [ -n "$undelivered" ]; then
        end="1 undelivered"
    elif [ -n "$terminated" ] && [ "$status" != 0 ]; then
        end="$status terminated"
    else
        end="$status exited"
    fi
    end_polls=0
    # Some file systems give the room of the reserve back only seconds later.
    until put exit "$end"; do
        end_polls=$((end_polls + 1))
        [ "$end_polls" -lt 100 ] || exit
        pause
    done
}

# wait_for_target: the folder that cargo keeps, and where it finds the source, are one job's.
wait_for_target() {
    [ "$job_target" != - ] || return 0
    wait_for_slot "$job_target.lock" 1 "target folder"
    [ -z "$slot" ] || target_turn=$generation
}

# wait_for_host LOCK SLOTS: sets $slot.
wait_for_host() {
    slot=
    [ "$1" != - ] || return 0
    # Beside every node's workdir, not in it: nodes of one host may have different ones.
    locks=${HOME:-$workdir}/.cache/orchestrator/locks/$1
    [ -d "$locks" ] || mkdir -p "$locks" 2>/dev/null || locks=$workdir/locks/$1
    wait_for_slot "$locks" "$2" host
}

# wait_for_slot LOCKS SLOTS WHAT: sets $slot, or gives up when the job is told to end; in $unable why
# it cannot be had at all.
wait_for_slot() {
    slot_unwritable=0
    while is_wanted; do
        slot=1
        while [ "$slot" -le "$2" ]; do
            ! acquire "$1/$slot" "$dir" || return 0
            slot_unwritable=$((slot_unwritable + unwritable))
            slot=$((slot + 1))
        done
        if [ "$slot_unwritable" -ge "$MAX_UNWRITABLE" ]; then
            unable="the lock of the $3, $1, cannot be written: $(room_in "$1")"
            break
        fi
        # The holder may be a job of hours: this is the one wait that nobody can end by telling.
        sleep 0.5 2>/dev/null || sleep 1
    done
    slot=
}

is_wanted() {
    [ -z "$terminated" ] && [ ! -e cancelled ]
}

# build TIMEOUT LOG_LIMIT: runs the script to its end and leaves nothing of it alive; sets $status.
build() {
    # OpenBSD's default class gives rustc 1.5 GiB of data, and it dies of that.
    raise_limit -d
    # macOS starts with 256 open files, and cargo dies of that.
    raise_limit -n
    remove_old_binaries
    if ! put started "$(date +%s)"; then
        status=1
        unable="the job's folder cannot be written: $(room_in .)"
        return
    fi
    put clock "$(clock_of $$)"
    kills_before=$(oom_kills)
    # What a background process inherits it holds open: the pipes tell the end of this one only.
    "$shell" "$dir/job.sh" guard "$workdir" "$id" $$ "$1" "$2" </dev/null >/dev/null 2>&1 3>&- 4>&- &
    guard_pid=$!
    look_up_start "$guard_pid"
    put guard "$guard_pid $start_of"
    exec 4>&-
    warmth=$(warmth_of_target)
    begun_at=$(exact_clock)
    # In the foreground, a trap waits until the script is over, and the status is the script's.
    (cd work && exec env -i "ORCHESTRATOR_OUT=$dir/out" "$shell" -e "$dir/script" </dev/null >>"$dir/log" 2>&1 3>&-)
    status=$?
    took="$begun_at $(exact_clock) $warmth"
    # The number that a signal is reported with: 256 + n in ksh93, 384 + n in yash.
    if [ "$status" -gt 384 ]; then
        status=$((status - 256))
    elif [ "$status" -gt 256 ]; then
        status=$((status - 128))
    fi
    if [ "$status" != 0 ]; then
        measure_room .
        strain="${free_kb:--} ${free_inodes:--} $(($(oom_kills) - kills_before))"
        case $free_kb/$free_inodes in
        [0-9]/* | [0-9][0-9]/* | */[0-9]) is_full=1 ;;
        esac
    fi
    # A TERM that was sent to the whole group is seen by now; what follows is our own.
    trap '' TERM INT
    # KILL, because a process that is just being made can lose a TERM to the traps of this one.
    kill -KILL "$guard_pid" 2>/dev/null
    wait "$guard_pid" 2>/dev/null
    signal_group TERM $$
    stop_tree $$
    left_behind=$found
    [ -z "$found" ] || printf 'orchestrator: processes that cannot be killed:%s\n' "$found" >>log
}

# warmth_of_target: whether an earlier build left something in the job's target folder; - without one.
warmth_of_target() {
    case $job_target in
    -) printf '%s\n' - ;;
    *) if [ -d "$job_target" ]; then echo warm; else echo cold; fi ;;
    esac
}

# Not in POSIX, but in every shell that a node has; without them, the limit stays as it is.
# shellcheck disable=SC3045
raise_limit() {
    limit=$(ulimit -H "$1" 2>/dev/null) || return 0
    # A failing builtin may end the shell, so a copy tries first.
    (ulimit -S "$1" "$limit") 2>/dev/null && ulimit -S "$1" "$limit" 2>/dev/null
}

# guard LEADER TIMEOUT LOG_LIMIT: a process of its own, so that nobody has to be watching.
guard() {
    trap '' HUP
    cd "$dir" || exit
    keep=$1
    guard_mark=deadline
    guard_left=$2
    guard_disturbed=0
    # Its naps are counted, not read from a clock: that may be set, and a laptop may have slept.
    while [ "$guard_left" -gt 0 ]; do
        guard_nap=2
        [ "$guard_left" -ge 2 ] || guard_nap=1
        if ! sleep "$guard_nap"; then
            guard_disturbed=$((guard_disturbed + 1))
            [ "$guard_disturbed" -lt 100 ] || exit
            continue
        fi
        guard_left=$((guard_left - guard_nap))
        if [ -n "$(find log -size "+$3c")" ]; then
            guard_mark=flooded
            break
        fi
    done
    trap '' TERM
    mark "$guard_mark"
    signal_group TERM "$1"
    stop_tree "$1"
}

# --- what a build leaves -----------------------------------------------------------------------

# In our own folders a binary from an earlier attempt is removed, so that what is there afterwards
# is new: cargo gives an unchanged program its old time.
remove_old_binaries() {
    while read -r binary_name binary_path; do
        [ -n "$binary_name" ] || continue
        case $binary_path in
        "$workdir"/*) rm -f "$binary_path" ;;
        esac
    done <binaries
}

# Copies into out/ while the host is still ours: the next job there may clear the same /tmp folder.
deliver() {
    deliver_all binary binaries && deliver_all extra extras
}

# deliver_all KIND LIST: each file that the list names.
deliver_all() {
    while read -r file_name file_path; do
        [ -n "$file_name" ] || continue
        if problem=$("deliver_$1" "$file_name" "$file_path" 2>&1); then
            continue
        fi
        printf 'orchestrator: %s\n' "$problem" >>log
        undelivered=$problem
        return 1
    done <"$2"
}

deliver_binary() {
    [ -e "$2" ] || [ -L "$2" ] || fail "the command exited with status 0 but left no binary at $2"
    refuse_links "the binary" "$2"
    require_file "the binary" "$2"
    case $2 in
    "$workdir"/*) ;;
    *)
        # Not `find NEW -newer OLD`: files of the same moment must pass.
        [ -z "$(find started -newer "$2")" ] ||
            fail "the binary $2 is older than the build: it was made by an earlier one"
        ;;
    esac
    take_in "$1" "$2"
}

# An extra file may be old: a licence is as old as its source.
deliver_extra() {
    extra_path=$2
    if [ -e "out/$1" ] || [ -L "out/$1" ]; then
        extra_path=$dir/out/$1
    elif [ ! -e "$2" ]; then
        fail "the command exited with status 0 but left no extra file at $2," \
            "nor as $1 in \$ORCHESTRATOR_OUT (\`project.extras\`)"
    fi
    case $extra_path in
    "$workdir"/sources/*) require_inside_source "$extra_path" ;;
    *) refuse_links "the extra file" "$extra_path" ;;
    esac
    require_file "the extra file" "$extra_path"
    take_in "$1" "$extra_path"
}

# refuse_links WHAT PATH
refuse_links() {
    refuse_links_below "$@"
    [ ! -L "$2" ] || fail "$1 $2 is a link, and links are never followed"
}

# require_file WHAT PATH
require_file() {
    [ -f "$2" ] || fail "$1 $2 is not a regular file"
}

# require_inside_source PATH: a source has links, to a licence above for example, and none of them
# leads out of it; what a build has put in their place could.
require_inside_source() {
    source_rest=${1#"$workdir"/sources/}
    source_root=$(cd -P "$workdir/sources/${source_rest%%/*}" && pwd -P) || exit
    source_file=$(real_path "$1") || fail "the extra file $1 is a link that leads nowhere"
    case $source_file in
    "$source_root"/*) ;;
    *) fail "the extra file $1 lies behind a link that leads out of the source" ;;
    esac
}

# real_path FILE: where the file itself lies, with every link on the way followed. It is there, so
# that its links come to an end.
real_path() {
    real_file=$1
    while :; do
        real_folder=$(cd -P "${real_file%/*}/" && pwd -P) || return
        real_file=$real_folder/${real_file##*/}
        [ -L "$real_file" ] || break
        real_target=$(readlink "$real_file") || return
        case $real_target in
        /*) real_file=$real_target ;;
        *) real_file=$real_folder/$real_target ;;
        esac
    done
    printf '%s\n' "$real_file"
}

# take_in NAME PATH: copies a file into out/, unless it is there already.
take_in() {
    [ "$2" != "$dir/out/$1" ] || return 0
    rm -rf "out/$1" && cp "$2" ".out.$$" && mv -f ".out.$$" "out/$1"
}

# refuse_links_below WHAT PATH: inside the job's folder no part of a path may lead elsewhere.
refuse_links_below() {
    case $2 in
    "$dir"/*) links_rest=${2#"$dir"/} ;;
    *) return 0 ;;
    esac
    links_path=$dir
    while :; do
        case $links_rest in
        */*) ;;
        *) return 0 ;;
        esac
        links_path=$links_path/${links_rest%%/*}
        links_rest=${links_rest#*/}
        [ ! -L "$links_path" ] || fail "$1 $2 lies behind the link $links_path"
    done
}

# delivered ATTEMPT NAME: stands in the job's folder, and out/NAME is a regular file of this attempt.
delivered() {
    enter "$1"
    [ ! -L out ] && [ ! -L "out/$2" ] || fail "out/$2 is a link, and links are never followed"
    [ -e "out/$2" ] || fail "out/$2 is gone: the job had delivered it"
    [ -f "out/$2" ] || fail "out/$2 is not a regular file"
}

size_of() {
    wc -c <"$1" | tr -d ' '
}

# hash_of FILE: every tool below prints exactly one 64-digit word for its standard input.
hash_of() {
    # openssl uses what the CPU has for it, and many a sha256sum does not: three times as fast.
    if command -v openssl >/dev/null; then
        openssl dgst -sha256 <"$1"
    elif command -v sha256sum >/dev/null; then
        sha256sum <"$1"
    elif command -v sha256 >/dev/null; then
        sha256 <"$1"
    elif command -v shasum >/dev/null; then
        shasum -a 256 <"$1"
    else
        cksum -a SHA256 <"$1"
    fi | tr -cs '0-9a-fA-F' '\n' | grep -E '^[0-9a-fA-F]{64}$'
}

# --- what is known -----------------------------------------------------------------------------

# evaluate [is_mine]: sets $job_state, $attempt, $status, $reason from the evidence in the folder.
# `is_mine` says that the start lock is held by this very process.
evaluate() {
    status=
    reason=
    read_value attempt
    attempt=$value
    if [ -z "$attempt" ]; then
        job_state=never
        return
    fi
    if has_ended; then return; fi
    if ! has_process; then
        job_state=never
        # Whoever holds the lock is this very process.
        [ $# -eq 0 ] || return 0
        if is_locked start.lock; then
            job_state=queued
            return
        fi
        # The lock is given back when the process is on record: it may be by now.
        has_process || return 0
    fi
    read_value start_time
    start_time=$value
    read_value boot
    if is_alive "$pid" "$start_time" "$value" "$dir"; then
        job_state=queued
        [ ! -e started ] || job_state=running
        return
    fi
    # It may have come to its end between the two looks.
    if has_ended; then return; fi
    job_state=stopped
    if [ -e cancelled ]; then
        reason=cancelled
    elif [ -e deadline ]; then
        reason=deadline
    elif [ -e flooded ]; then
        reason=flooded
    elif [ "$value" != "$boot" ]; then
        reason=reboot
    else
        reason=killed
    fi
}

# has_process: sets $pid to the process that the job's folder names, if it names one.
has_process() {
    read_value pid
    pid=$value
    [ -n "$pid" ]
}

has_ended() {
    [ -e exit ] || return
    read -r status reason <./exit
    job_state=stopped
    case $reason in
    exited | undelivered) job_state=finished ;;
    esac
}

# read_value NAME: the first line of a file in $value; empty without the file.
read_value() {
    value=
    [ ! -e "$1" ] || read -r value <"$1" 2>/dev/null || :
}

state() {
    attempt=
    job_state=never
    status=
    reason=
    if cd "$dir" 2>/dev/null; then evaluate; fi
    printf '%s=%s\n' state "$job_state" attempt "$attempt" status "$status" reason "$reason" \
        boot_now "$boot"
    [ "$attempt" ] || return 0
    for state_name in label pid boot started undelivered unable deadline flooded; do
        read_value "$state_name"
        printf '%s=%s\n' "$state_name" "$value"
    done
    case $job_state in
    running)
        # As long as its guard lives, that one tells how long is too long: it does not count sleep.
        [ ! -e guard ] || read -r guard_pid guard_start <guard
        if [ -n "${guard_pid-}" ]; then
            look_up_start "$guard_pid"
            [ "$start_of" != "$guard_start" ] || return 0
        fi
        read_value clock
        clock_now=$(clock_of "$pid")
        [ -z "$value" ] || [ -z "$clock_now" ] || printf '%s=%s\n' ran_seconds $((clock_now - value))
        ;;
    finished)
        [ ! -e strain ] || read -r free_kb free_inodes kills <strain
        [ ! -e strain ] || printf '%s=%s\n' free_kb "$free_kb" free_inodes "$free_inodes" oom_kills "$kills"
        read_value took
        printf '%s=%s\n' took "$value"
        ;;
    esac
    [ "$job_state" = stopped ] || return 0
    find_processes "$(group_of_old_attempt)"
    printf 'survivors=%s\n' "$found"
}

list() {
    for list_dir in "$workdir"/jobs/*; do
        [ -d "$list_dir" ] || continue
        dir=$list_dir
        id=${dir##*/}
        printf 'job=%s\n' "$id"
        state
    done
}

# enter ATTEMPT: stands in the job's folder, unless a newer attempt has taken it over.
enter() {
    cd "$dir" 2>/dev/null || fail "job $id is not there: $dir"
    read_value attempt
    [ "$value" = "$1" ] || fail "attempt $1 of job $id is not the current one, which is ${value:-none}"
}

follow() {
    enter "$1"
    pipe=alive
    if [ "$verb" = queue ]; then
        # Whoever asked believes that it waits for the host; if it does not, they have to look again.
        if [ -e started ] || [ -e exit ]; then return 0; fi
        pipe=queue
    fi
    # Opened for both first: to open a pipe for reading alone waits for a writer, who may be gone.
    exec 4<>"$pipe"
    exec 5<"$pipe"
    exec 4>&-
    # Where tail is told of each write, a build that writes line by line takes twice as long for it.
    if tail ---disable-inotify -s 0.1 -c +1 /dev/null >/dev/null 2>&1; then
        tail ---disable-inotify -s 0.1 -c "+$2" -f log </dev/null 5<&- &
    else
        tail -c "+$2" -f log </dev/null 5<&- &
    fi
    tail_pid=$!
    # KILL, because a process that is just being made can lose a TERM to the traps of this one.
    trap 'kill -KILL "$tail_pid" 2>/dev/null; exit 1' HUP INT TERM
    cat <&5 >/dev/null
    kill -KILL "$tail_pid" 2>/dev/null
    wait "$tail_pid" 2>/dev/null
    return 0
}

rest() {
    enter "$1"
    from "$2" log
}

# pack BYTE FILE
pack() {
    if command -v gzip >/dev/null; then
        echo gzip
        (from "$1" "$2") | gzip -1
    else
        echo plain
        from "$1" "$2"
    fi
}

# from BYTE FILE: prints it from that byte on, the first being 1.
from() {
    # cat reads in much larger pieces.
    [ "$1" != 1 ] || exec cat "$2"
    exec tail -c "+$1" "$2"
}

# --- the end of a process tree -----------------------------------------------------------------

cancel() {
    cd "$dir" 2>/dev/null || fail "job $id is not there: $dir"
    # A job that is just being started has no process group on record yet. Without room for a lock
    # nobody can start it either.
    turn=
    ! take_turn "$dir/start.lock" || turn=$generation
    enter "$1"
    evaluate is_mine
    case $job_state in
    queued | running)
        mark cancelled
        end_tree
        ;;
    stopped) end_tree ;;
    esac
    [ -n "$turn" ] || return 0
    generation=$turn
    release "$dir/start.lock"
}

# end_tree: ends every process of the job; prints those that cannot be ended.
end_tree() {
    leader=$(group_of_old_attempt)
    if [ -n "$leader" ]; then
        # The wrapper outlives TERM, ends the rest of its tree, and writes down how it went.
        keep=$leader
        signal_group TERM "$leader"
        stop_tree "$leader"
        keep=
        wait_until_gone "$leader" 15
        wait_until_gone "$leader" 10 KILL
    fi
    stop_tree "$leader"
    for survivor in $found; do
        ps -o pid= -o stat= -o args= -p "$survivor" 2>/dev/null || printf '%s\n' "$survivor"
    done
}

# group_of_old_attempt: the process group of the job, if that number still means the job.
group_of_old_attempt() {
    read_value boot
    [ "$value" = "$boot" ] || return 0
    read_value start_time
    start_time=$value
    read_value pid
    is_number "$value" || return 0
    # While a group lives, its number goes to no other process: a foreign leader is a foreign group.
    look_up_start "$value"
    [ -n "$start_of" ] && [ "$start_of" != "$start_time" ] || printf '%s\n' "$value"
}

# stop_tree GROUP: TERM, then KILL, for every process of the job but this one and $keep; those that
# survive are in $found.
stop_tree() {
    wait_until_gone "$1" $((GRACE_SECONDS * 5)) TERM
    [ -z "$found" ] || wait_until_gone "$1" 10 KILL
}

# wait_until_gone GROUP POLLS [SIGNAL]: the signal again and again, for what was born meanwhile.
wait_until_gone() {
    gone_polls=$2
    while find_processes "$1" && [ -n "$found" ] && [ "$gone_polls" -gt 0 ]; do
        [ -z "${3-}" ] || signal_each "$3"
        gone_polls=$((gone_polls - 1))
        pause
    done
}

pause() {
    sleep 0.2 2>/dev/null || sleep 1
}

signal_each() {
    for signal_pid in $found; do
        kill "-$1" "$signal_pid" 2>/dev/null
    done
}

# signal_group SIGNAL GROUP: by the builtin alone. /bin/kill of procps 4.0.2 takes -10 for "all".
signal_group() {
    is_number "$2" || return 0
    case $(command -v kill) in
    */*)
        find_processes "$2"
        signal_each "$1"
        ;;
    *) kill "-$1" "-$2" 2>/dev/null ;;
    esac
    return 0
}

is_number() {
    case $1 in
    '' | *[!0-9]* | 0* | 1) return 1 ;;
    esac
}

# find_processes GROUP: sets $found to the living processes of the job but this one and $keep: those
# of its group, and those elsewhere that carry its mark in their environment.
# No subshells here: a copy of this shell would find itself.
find_processes() {
    found=
    if [ -r "$PROC/self/stat" ]; then
        find_in_proc "$1"
    else
        find_with_ps "$1"
    fi
    return 0
}

# No file, for which a full disk has no room. Each search is one command in the place of the copy of
# this shell; no pipeline, because ksh93 waits for the last command only, and would find the others.
find_in_proc() {
    # Whoever cancels the job may end such a command of its wrapper: then it has to look again.
    while :; do
        proc_files=$(exec grep -lsE "\\) [^ZX] [0-9]+ ${1:-none} " "$PROC"/[0-9]*/stat 2>/dev/null)
        [ $? -gt 128 ] || break
    done
    while :; do
        # -z, because to busybox a line ends at the first NUL.
        proc_marked=$(exec grep -lszF -f cookie "$PROC"/[0-9]*/environ 2>/dev/null)
        [ $? -gt 128 ] || break
    done
    proc_files="$proc_files $proc_marked"
    for found_pid in $proc_files; do
        found_pid=${found_pid#"$PROC"/}
        found_pid=${found_pid%%/*}
        # The two that searched are gone by now.
        look_up_start "$found_pid"
        [ -z "$start_of" ] || add_found "$found_pid"
    done
}

find_with_ps() {
    # -E or -e adds the environment; macOS hides that of its own programs, so arguments count too.
    case $(uname -s) in
    Darwin) ps_options=-axEww ;;
    Linux) ps_options=-axww ;;
    *) ps_options=-axeww ;;
    esac
    ps_lines=$(exec ps "$ps_options" -o pid= -o pgid= -o stat= -o command= 2>/dev/null)
    ps_wanted=$1
    ps_ifs=$IFS
    set -f
    IFS='
'
    for ps_line in $ps_lines; do
        IFS=$ps_ifs
        # shellcheck disable=SC2086 # three numbers and words, and a command that stays in $ps_line
        set -- $ps_line
        case $3 in
        Z*) continue ;;
        esac
        # Copies of this shell have the arguments of the job, but are not what is looked for.
        if [ -z "$ps_wanted" ] && [ "$2" = $$ ]; then continue; fi
        case $2/$ps_line in
        "$ps_wanted"/* | *"/$dir/"* | *" $dir/"* | *"ORCHESTRATOR_OUT=$dir/"*) ! kill -0 "$1" 2>/dev/null || add_found "$1" ;;
        esac
    done
    IFS=$ps_ifs
    set +f
}

add_found() {
    case " $$ $keep $found " in
    *" $1 "*) ;;
    *) found="$found $1" ;;
    esac
}

# --- who is alive ------------------------------------------------------------------------------

# is_alive PID START_TIME BOOT DIR: whether that very process lives, not one that got its number.
is_alive() {
    is_number "$1" || return
    look_up_start "$1"
    [ -n "$start_of" ] || return
    [ "$start_of/$boot" != "$2/$3" ] || return 0
    # The BSDs count both times from the wall clock, which may have been set since.
    [ ! -r "$PROC/self/stat" ] || return
    case $(ps -ww -o args= -p "$1") in
    *" $4/job.sh "*) return 0 ;;
    esac
    return 1
}

# look_up_start PID: sets $start_of to when the process started, as one word; to nothing for a
# zombie or no process.
look_up_start() {
    start_of=
    if [ -r "$PROC/self/stat" ]; then
        { read -r stat_line <"$PROC/$1/stat"; } 2>/dev/null || return 0
        # shellcheck disable=SC2086 # the fields after the command, which may hold anything
        set -- ${stat_line##*") "}
        [ "$1" = Z ] || start_of=${20}
    else
        start_of=$(ps -o stat= -o lstart= -p "$1" 2>/dev/null |
            sed -n -e '/^ *Z/d' -e 's/^ *[^ ]* *//' -e 's/[^A-Za-z0-9]/-/gp')
    fi
}

# find_boot: sets $boot to one word that another boot does not have.
find_boot() {
    if [ -r "$PROC/sys/kernel/random/boot_id" ]; then
        read -r boot <"$PROC/sys/kernel/random/boot_id"
        return
    fi
    for boot_name in kern.bootsessionuuid kern.boot_id kern.boottime; do
        boot=$(sysctl -n "$boot_name" 2>/dev/null | tr -cd 'A-Za-z0-9')
        [ -z "$boot" ] || return 0
    done
    boot=unknown
}

# --- locks -------------------------------------------------------------------------------------
#
# A lock is a folder of numbered files; the highest one tells who holds it: "PID START BOOT DIR", or
# "released". To take it, link a file to the next number, which fails if it exists, and look again:
# with a still higher one there, ours came from an old look and is removed. The highest file never
# goes away, so a number is never used twice, and nobody breaks a lock that is not the one it saw.

# acquire LOCK DIR: tries once; true with $generation set when it is ours. $unwritable is 1 when it
# was not for another holder that it failed.
acquire() {
    unwritable=0
    [ -d "$1" ] || mkdir -p "$1" 2>/dev/null
    find_highest "$1"
    if is_held "$1/$highest"; then return 1; fi
    generation=$((highest + 1))
    look_up_start $$
    if ! write_claim "$1" "$$ $start_of $boot $2"; then
        unwritable=1
        rm -f "$1/claim.$$"
        return 1
    fi
    ln "$1/claim.$$" "$1/$generation" 2>/dev/null
    acquired=$?
    rm -f "$1/claim.$$"
    if [ "$acquired" != 0 ]; then
        [ -e "$1/$generation" ] || unwritable=1
        return 1
    fi
    find_highest "$1"
    if [ "$highest" != "$generation" ]; then
        rm -f "$1/$generation"
        return 1
    fi
    # A few old ones stay: a listing that is under way must meet at least one of the latest.
    for lock_file in "$1"/[0-9]*; do
        [ $((${lock_file##*/} + 8)) -gt "$generation" ] || rm -f "$lock_file"
    done
    [ -e "$1/spare" ] || { printf '%512s\n' '' >"$1/spare.$$" && mv -f "$1/spare.$$" "$1/spare"; } 2>/dev/null
    return 0
}

# write_claim LOCK TEXT: on a full disk in the place of what was kept for it in better times.
write_claim() {
    { printf '%s\n' "$2" >"$1/claim.$$"; } 2>/dev/null && return
    { mv -f "$1/spare" "$1/claim.$$" && printf '%s\n' "$2" 1<>"$1/claim.$$"; } 2>/dev/null
}

# release LOCK: $generation must be the one that was acquired.
release() {
    { printf 'released\n' >"$1/claim.$$" && mv -f "$1/claim.$$" "$1/$generation"; } 2>/dev/null && return
    rm -f "$1/claim.$$"
    printf 'released\n' 1<>"$1/$generation"
}

is_locked() {
    find_highest "$1"
    is_held "$1/$highest"
}

find_highest() {
    highest=0
    for lock_file in "$1"/[0-9]*; do
        [ -e "$lock_file" ] || continue
        [ "${lock_file##*/}" -le "$highest" ] || highest=${lock_file##*/}
    done
}

is_held() {
    case $1 in
    */0) return 1 ;;
    esac
    # Gone since it was listed: somebody else is at it.
    { read -r held_pid held_start held_boot held_dir <"$1"; } 2>/dev/null || return 0
    [ "$held_pid" != released ] || return
    ! is_alive "$held_pid" "$held_start" "$held_boot" "$held_dir" || return 0
    [ "$held_boot" = "$boot" ] && [ "$held_dir" != - ] || return
    # The wrapper is dead, but what it ran may still be using the host.
    (
        dir=$held_dir
        cd "$dir" 2>/dev/null || exit 1
        held_group=$(group_of_old_attempt)
        # It is the next attempt that asks, and this copy of it would find itself.
        [ "$held_group" != $$ ] || held_group=
        find_processes "$held_group"
        [ -n "$found" ]
    )
}

# --- housekeeping ------------------------------------------------------------------------------
#
# Everything that a job needs, its own folder included, has a file whose time says when it was last
# used. What goes is renamed first, under the lock that a start takes to note what it uses, and
# removed afterwards.

# tidy MINUTES FREE_KB: removes what was not used for so long and then, until so much is free, what
# was used longest ago; never what is in use. Prints what.
tidy() {
    cd "$workdir" 2>/dev/null || return 0
    [ ! -L trash ] || fail "$workdir/trash is a link, and links are never followed"
    mkdir -p trash || fail "cannot make $workdir/trash: $(room_in .)"
    retired=0
    measure_free .
    room_before=${free_kb:-0}
    # What a killed one has left there.
    empty_trash
    retire_leftovers
    retire "$1" all
    empty_trash
    measure_free .
    while [ "${free_kb:-$2}" -lt "$2" ] && retire "$SPARED_MINUTES" one; do
        empty_trash
        measure_free .
    done
    printf 'freed %s\n' $((${free_kb:-0} - room_before))
}

# retire_leftovers: of gates, transfers and unpackings that were cut off; after a day they are nobody's.
retire_leftovers() {
    leftovers=$(find gates/* sources/.*.part sources/*.new -prune -mmin +1440 2>/dev/null)
    for leftover in $leftovers; do
        case ${leftover##*/} in
        *[!A-Za-z0-9._-]*) ;;
        *) throw_away "$leftover" ;;
        esac
    done
}

# retire MINUTES all|one: true if something went.
retire() {
    retire_minutes=$1
    [ "$retire_minutes" -gt "$SPARED_MINUTES" ] || retire_minutes=$SPARED_MINUTES
    retired_before=$retired
    take_turn "$workdir/use.lock" || fail "cannot write to $workdir: $(room_in .)"
    list_uses
    # shellcheck disable=SC2086 # a list of words
    [ -z "$stamps" ] || stamps=$(find $stamps -prune -mmin "+$retire_minutes")
    # shellcheck disable=SC2086,SC2012 # as above; the oldest comes first
    [ -z "$stamps" ] || stamps=$(ls -1dtr $stamps)
    for stamp in $stamps; do
        retire_one "$stamp" "$2"
        [ "$2" = all ] || [ "$retired" = "$retired_before" ] || break
    done
    release "$workdir/use.lock"
    [ "$retired" != "$retired_before" ]
}

# list_uses: in $stamps what tells the last use of each thing, in $in_use what must not go.
list_uses() {
    stamps=
    in_use=
    for thing in jobs/* target/* sources/*; do
        case ${thing#*/} in
        *[!A-Za-z0-9._-]* | .* | *.lock | *.complete | *.new) continue ;;
        esac
        [ -d "$thing" ] || continue
        case $thing in
        # It goes with its target folder.
        sources/*.tree) [ ! -d "$(target_of "$thing")" ] || continue ;;
        esac
        stamp=$thing
        for each_stamp in "$thing/last_use" "$thing/.last_use" "$thing.complete"; do
            [ ! -f "$each_stamp" ] || stamp=$each_stamp
        done
        stamps="$stamps $stamp"
        case $thing in
        jobs/*) in_use="$in_use $(uses_of "$workdir/$thing")" ;;
        sources/*) ! is_locked "$thing.lock" || in_use="$in_use $workdir/$thing" ;;
        esac
    done
}

# uses_of FOLDER: what the job there uses, itself included, if it is not at its end.
uses_of() {
    dir=$1
    cd "$dir" 2>/dev/null || return 0
    evaluate
    case $job_state in
    queued | running) ;;
    *)
        found=
        # A killed one may have left processes that go on.
        [ -z "$attempt" ] || [ -e exit ] || find_processes "$(group_of_old_attempt)"
        [ -n "$found" ] || is_locked start.lock || return 0
        ;;
    esac
    job_uses=
    [ ! -e uses ] || read -r job_uses <uses
    printf '%s %s\n' "$dir" "$job_uses"
}

has_delivered() {
    [ -e "$1/exit" ] || return
    read -r delivered_status delivered_reason <"$1/exit"
    [ "$delivered_status $delivered_reason" = "0 exited" ]
}

retire_one() {
    thing=${1%/last_use}
    thing=${thing%/.last_use}
    thing=${thing%.complete}
    case " $in_use " in
    *" $workdir/$thing "* | *" $workdir/$(target_of "$thing") "*) return ;;
    esac
    # Somebody may still come for what was built, however little room there is.
    case $2/$thing in
    one/jobs/*) ! has_delivered "$thing" || return ;;
    esac
    # The mark of a source goes first: what it vouches for is then gone already.
    case $thing in
    sources/*) rm -f "$thing.complete" ;;
    esac
    throw_away "$thing"
    case $thing in
    target/*) throw_away "sources/${thing#*/}.tree" >/dev/null ;;
    esac
}

# target_of TREE: the target folder whose source it is; what is none stays as it is.
target_of() {
    case $1 in
    sources/*.tree)
        target_name=${1#*/}
        printf '%s\n' "target/${target_name%.tree}"
        ;;
    *) printf '%s\n' "$1" ;;
    esac
}

throw_away() {
    mv -f "$1" "trash/$$.$retired" 2>/dev/null || return 0
    retired=$((retired + 1))
    printf '%s\n' "$1"
}

empty_trash() {
    for trash_file in trash/*; do
        [ ! -e "$trash_file" ] && [ ! -L "$trash_file" ] || remove_tree "$trash_file"
    done
}

# --- sources -----------------------------------------------------------------------------------

# unpack PART SHA256 [BASE]: a folder sources/DIGEST is whole or not there, whoever else is at it.
# Crates that were not sent are in the source BASE.
unpack() {
    cd "$workdir/sources" || exit
    [ "$(hash_of "$1")" = "$2" ] || {
        rm -f "$1"
        fail "the bundle arrived with other bytes than were sent"
    }
    unpack_unwritable=0
    until acquire "$id.lock" -; do
        unpack_unwritable=$((unpack_unwritable + unwritable))
        [ "$unpack_unwritable" -lt 5 ] || fail "cannot write to $workdir/sources: $(room_in .)"
        pause
    done
    unpacked=0
    if [ ! -e "$id.complete" ] || [ ! -d "$id" ]; then
        remove_tree "$id" "$id.complete" "$id.new"
        # The mark must not reach the disk before what it vouches for: power may fail.
        mkdir "$id.new" && tar -xzf "$1" -C "$id.new" && fill_in "$id.new" "${3-}" &&
            mv "$id.new" "$id" && sync_to_disk "$id" && : >"$id.complete"
        unpacked=$?
        [ "$unpacked" = 0 ] || no_room=$(room_in .)
        remove_tree "$id.new"
    fi
    rm -f "$1"
    release "$id.lock"
    [ "$unpacked" = 0 ] || fail "cannot unpack the bundle: $no_room"
}

# sync_to_disk FOLDER: all of its file system, where the system can; else of every one that it has.
sync_to_disk() {
    sync -f "$1" 2>/dev/null || sync
}

# fill_in NEW BASE: brings the crates that NEW lacks and BASE has, as both lists say; false if one is
# missing. Cargo itself compares every file of a crate with that crate's list.
fill_in() {
    [ -n "$2" ] || return 0
    missing_crates=
    while read -r crate_hash crate_folder; do
        [ -d "$1/vendor/$crate_folder" ] || missing_crates="$missing_crates $crate_hash=$crate_folder"
    done <"$1/.cargo/vendored"
    copied_crates=
    for crate in $missing_crates; do
        copied_crates="$copied_crates ${crate#*=}"
        printf '%s %s\n' "${crate%%=*}" "${crate#*=}"
    done >"$1/.cargo/missing"
    ! grep -vxF -f "$2/.cargo/vendored" "$1/.cargo/missing" >/dev/null || return
    rm -f "$1/.cargo/missing"
    # shellcheck disable=SC2086 # a list of words
    [ -z "$copied_crates" ] || (into=$(pwd)/$1/vendor && cd "$2/vendor" && bring "$into" $copied_crates)
}

# bring INTO FOLDER...: as hard links, which take no room, where this cp and the file system have them.
bring() {
    brought_into=$1
    shift
    cp -RPpl "$@" "$brought_into/" 2>/dev/null && return
    (cd "$brought_into" && rm -rf "$@")
    cp -RPp "$@" "$brought_into/"
}

# --- small things ------------------------------------------------------------------------------

# put NAME TEXT: a file that is whole or not there.
put() {
    { printf '%s\n' "$2" >".$1.$$" && mv -f ".$1.$$" "$1"; } 2>/dev/null && return
    rm -f ".$1.$$"
    return 1
}

# In front of the last percentage is what is free; some file systems do not count inodes.
# shellcheck disable=SC2016 # awk expands it
ROOM_OF_LINE='NR > 1 { for (i = NF; i > 2; i--) if ($i ~ /^[0-9]+%$/) {
    # What root may use of a reserve is shown as less than nothing.
    if ($(i - 1) + $(i - 2) > 0) print ($(i - 1) > 0 ? $(i - 1) : 0)
    exit
} }'

# measure_free FOLDER: sets $free_kb; empty when the system does not say.
measure_free() {
    free_kb=$(df -Pk "$1" 2>/dev/null | awk "$ROOM_OF_LINE")
}

# measure_room FOLDER: sets $free_kb and $free_inodes in the same way.
measure_room() {
    measure_free "$1"
    case $(uname -s) in
    Linux) inodes_option=-Pi ;;
    *) inodes_option=-i ;;
    esac
    free_inodes=$(df "$inodes_option" "$1" 2>/dev/null | awk "$ROOM_OF_LINE")
}

# oom_kills: how many processes the kernel has killed for want of memory since the boot, if it counts.
oom_kills() {
    oom_count=$(sed -n 's/^oom_kill //p' "$VMSTAT" 2>/dev/null)
    printf '%s\n' "${oom_count:-0}"
}

# clock_of PID: seconds on a clock that nobody sets: since the boot, or since the process was started.
clock_of() {
    if [ -r "$PROC/uptime" ]; then
        read -r uptime_seconds <"$PROC/uptime"
        printf '%s\n' "${uptime_seconds%%[. ]*}"
        return
    fi
    # [[days-]hours:]minutes:seconds
    ps -o etime= -p "$1" 2>/dev/null |
        awk -F '[-:]' 'NF > 1 { print $NF + 60 * $(NF - 1) + 3600 * (NF > 2 ? $(NF - 2) : 0) + 86400 * (NF > 3 ? $1 : 0) }'
}

# exact_clock: the same in hundredths of a second where the system counts them, for a difference.
exact_clock() {
    if [ -r "$PROC/uptime" ]; then
        read -r uptime_seconds <"$PROC/uptime"
        printf '%s\n' "${uptime_seconds%% *}"
        return
    fi
    clock_of $$
}

# room_in FOLDER: how much is free there, for a message.
room_in() {
    measure_room "$1"
    printf '%s KiB and %s inodes are free in %s\n' "${free_kb:-?}" "${free_inodes:-?}" "$(cd "$1" 2>/dev/null && pwd)"
}

main "$@"
