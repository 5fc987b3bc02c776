//! What happened over a batch of seeds, counted by name. A simulation in which nothing happens proves nothing.

use std::fmt;

macro_rules! events {
    ($($event:ident: $times:literal $name:literal,)*) => {
        /// Something that the simulation brings about.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Event { $($event,)* }

        const NAMES: &[&str] = &[$($name,)*];

        /// How often each happens at least in a hundred thousand seeds.
        const TIMES_MIN: &[u64] = &[$($times,)*];
    };
}

events! {
    CrashIntake: 10_000 "crash at intake",
    CrashPack: 10_000 "crash at a pack",
    CrashCommit: 10_000 "crash at a commit",
    CrashSegment: 10_000 "crash at an index segment",
    CrashRecord: 10_000 "crash at a run record",
    CrashIdle: 10_000 "crash when idle",
    CrashRestore: 10_000 "crash of a restore",
    Kill: 10_000 "a process is killed",
    KillInWrite: 1_000 "a process is killed between two steps of a file's write",
    Power: 10_000 "the power fails",
    Dropped: 10_000 "a transfer is dropped",
    Stopped: 10_000 "a transfer is told to stop",
    ContentLost: 1_000 "content that was not synced is lost",
    ContentTorn: 1_000 "content that was not synced is torn",
    NameLost: 1_000 "a change of a directory that was not synced is lost",
    SyncFailed: 1_000 "a sync fails",
    DiskFull: 1_000 "the disk is full",
    PartialWrite: 1_000 "a write takes only some octets",
    AnswerLost: 10_000 "an answer is lost after the write took effect",
    LateWrite: 10_000 "a write takes effect late",
    LateCommit: 1_000 "a commit comes late, in time or not",
    Slow: 10_000 "an answer is slow",
    Reordered: 10_000 "answers come in another order",
    Throttled: 10_000 "the store throttles",
    Transient: 10_000 "an operation fails for once",
    ShortRead: 10_000 "a read is short",
    FlippedBit: 10_000 "a read has a flipped bit",
    Overwritten: 10_000 "a create overwrites",
    RaceBothWon: 1_000 "two racing creates both win",
    Taken: 10_000 "a commit finds its place taken",
    DetectedLoss: 1_000 "a loss by such a store is detected",
    TwoWriters: 10_000 "two writers of the same mailboxes",
    TwoSources: 10_000 "two sources of one mailbox",
    TwoTransfers: 10_000 "two transfers in one process",
    LongJournal: 1_000 "a journal is so long that commits are checkpoints",
    Hit: 10_000 "a blob is not stored again",
    New: 10_000 "a message is new",
    Changed: 10_000 "a message's octets change",
    Flagged: 10_000 "a message's flags change",
    Moved: 10_000 "a message is moved",
    Gone: 10_000 "a message is gone",
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

    /// The events that happened less often than they should in so many seeds.
    pub fn rare(&self, seeds: u64) -> Vec<String> {
        let mut rare = Vec::new();
        for ((name, count), times) in NAMES.iter().zip(&self.0).zip(TIMES_MIN) {
            let times = times * seeds / 100_000;
            if *count < times {
                rare.push(format!("{name}: {count} times, not {times}"));
            }
        }
        rare
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
