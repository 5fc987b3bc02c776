//! What happened over a batch of seeds, counted by name. A simulation in which nothing happens proves nothing.

use std::fmt;

macro_rules! events {
    ($($event:ident: $name:literal,)*) => {
        /// Something that the simulation brings about.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Event { $($event,)* }

        const NAMES: &[&str] = &[$($name,)*];
    };
}

/// How often each event happens at least in ten thousand seeds.
const TIMES_MIN: u64 = 1_000;

events! {
    CrashIntake: "crash at intake",
    CrashPack: "crash at a pack",
    CrashCommit: "crash at a commit",
    CrashSegment: "crash at an index segment",
    CrashRecord: "crash at a run record",
    CrashIdle: "crash when idle",
    CrashRestore: "crash of a restore",
    CrashForget: "crash when forgetting",
    CrashLook: "crash of a sweep when it looks",
    CrashRewrite: "crash of a sweep when it writes packs anew",
    CrashMark: "crash of a sweep at its mark",
    CrashFence: "crash of a sweep when it fences",
    CrashReadAgain: "crash of a sweep when it reads again",
    CrashVerdict: "crash of a sweep at its verdict",
    CrashDelete: "crash of a sweep when it deletes",
    CrashDone: "crash of a sweep when it is done",
    CrashTidy: "crash of a sweep when it tidies",
    Kill: "a process is killed",
    KillInWrite: "a process is killed between two steps of a file's write",
    Power: "the power fails",
    Dropped: "a transfer is dropped",
    Stopped: "a transfer is told to stop",
    ContentLost: "content that was not synced is lost",
    ContentTorn: "content that was not synced is torn",
    NameLost: "a change of a directory that was not synced is lost",
    SyncFailed: "a sync fails",
    DiskFull: "the disk is full",
    PartialWrite: "a write takes only some octets",
    AnswerLost: "an answer is lost after the write took effect",
    LateWrite: "a write takes effect late",
    LateCommit: "a commit comes late, in time or not",
    LateSweep: "a write of a sweep comes late",
    Slow: "an answer is slow",
    Stalled: "a process sleeps in the midst of its work",
    Reordered: "answers come in another order",
    Throttled: "the store throttles",
    Transient: "an operation fails for once",
    ShortRead: "a read is short",
    FlippedBit: "a read has a flipped bit",
    Overwritten: "a create overwrites",
    RaceBothWon: "two racing creates both win",
    Taken: "a commit finds its place taken",
    DetectedLoss: "a loss by such a store is detected",
    TwoWriters: "two writers of the same mailboxes",
    TwoSources: "two sources of one mailbox",
    TwoTransfers: "two transfers in one process",
    Veteran: "a process transfers again, with what it knew",
    LongJournal: "a journal is so long that commits are checkpoints",
    Hit: "a blob is not stored again",
    New: "a message is new",
    Changed: "a message's octets change",
    Flagged: "a message's flags change",
    Moved: "a message is moved",
    Gone: "a message is gone",
    ReadFailed: "a source fails in the midst of a message",
    Denied: "a source refuses a message",
    Vanished: "a message vanishes between listing and opening",
    ReadChanged: "a message changes while it is read",
    ReadShort: "a message has fewer octets than it should",
    Lasting: "a message stays unreadable",
    Quarantined: "a message is in quarantine",
    Unlisted: "a mailbox cannot be listed to its end",
    Forgotten: "a mailbox is forgotten",
    ForgottenBefore: "what was before a time is forgotten",
    AskedForgotten: "a time that is forgotten is asked for",
    AskedPast: "the past is asked for, and is exact",
    Marked: "a sweep marks",
    MarkTaken: "a sweep finds that another has marked",
    FencedWriter: "a writer is fenced",
    FencedJournal: "a journal is fenced",
    Spared: "a pack is spared for its writer's sake",
    Pardoned: "a verdict pardons a pack",
    VerdictTaken: "a sweep finds another's verdict",
    Resumed: "a sweep is carried out by another",
    WantedAgain: "a blob that was condemned is wanted again",
    Rewritten: "a pack is written anew, with what is needed of others",
    MovedDeleted: "a pack is deleted of which all that is needed is elsewhere",
    Followed: "moves are read by a restore or check",
    PackDeleted: "a pack is deleted",
    CommitDeleted: "a forgotten commit is deleted",
    RecordsDeleted: "records of old runs are deleted",
    RestoreBeside: "a restore or check beside a sweep",
    ForgottenBeside: "something is forgotten beside a restore or check",
}

/// How often each event happened.
#[derive(Clone, PartialEq, Eq)]
pub struct Coverage([u64; NAMES.len()]);

impl Coverage {
    pub fn count(&mut self, event: Event) {
        self.add(event, 1);
    }

    pub fn add(&mut self, event: Event, times: u64) {
        self.0[event as usize] += times;
    }

    pub fn join(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(sum, more)| *sum += more);
    }

    /// The events that happened less often than they should in so many seeds. In few seeds chance is allowed for.
    pub fn rare(&self, seeds: u64) -> Vec<String> {
        let times = TIMES_MIN * seeds / 10_000;
        let times = if seeds < 10_000 { times / 2 } else { times };
        let rare = NAMES.iter().zip(&self.0).filter(|(_, count)| **count < times);
        rare.map(|(name, count)| format!("{name}: {count} times, not {times}")).collect()
    }
}

impl Default for Coverage {
    fn default() -> Self {
        Self([0; NAMES.len()])
    }
}

impl fmt::Debug for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        NAMES.iter().zip(&self.0).try_for_each(|(name, count)| writeln!(f, "{count:>10}  {name}"))
    }
}
