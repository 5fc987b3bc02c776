//! What happened over a batch of seeds, counted by name. A simulation in which nothing happens proves nothing.

use std::fmt;

macro_rules! events {
    ($($event:ident: $times:literal $name:literal,)*) => {
        /// Something that the simulation brings about.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Event { $($event,)* }

        const NAMES: &[&str] = &[$($name,)*];

        /// How often each happens at least in ten thousand seeds.
        const TIMES_MIN: &[u64] = &[$($times,)*];
    };
}

events! {
    CrashIntake: 1000 "crash at intake",
    CrashPack: 1000 "crash at a pack",
    CrashCommit: 1000 "crash at a commit",
    CrashSegment: 1000 "crash at an index segment",
    CrashRecord: 1000 "crash at a run record",
    CrashIdle: 1000 "crash when idle",
    CrashRestore: 1000 "crash of a restore",
    Kill: 1000 "a process is killed",
    KillInWrite: 100 "a process is killed between two steps of a file's write",
    Power: 1000 "the power fails",
    Dropped: 1000 "a transfer is dropped",
    Stopped: 1000 "a transfer is told to stop",
    ContentLost: 100 "content that was not synced is lost",
    ContentTorn: 100 "content that was not synced is torn",
    NameLost: 100 "a change of a directory that was not synced is lost",
    SyncFailed: 100 "a sync fails",
    DiskFull: 100 "the disk is full",
    PartialWrite: 100 "a write takes only some octets",
    AnswerLost: 1000 "an answer is lost after the write took effect",
    LateWrite: 1000 "a write takes effect late",
    LateCommit: 100 "a commit comes late, in time or not",
    Slow: 1000 "an answer is slow",
    Reordered: 1000 "answers come in another order",
    Throttled: 1000 "the store throttles",
    Transient: 1000 "an operation fails for once",
    ShortRead: 1000 "a read is short",
    FlippedBit: 1000 "a read has a flipped bit",
    Overwritten: 1000 "a create overwrites",
    RaceBothWon: 100 "two racing creates both win",
    Taken: 1000 "a commit finds its place taken",
    DetectedLoss: 100 "a loss by such a store is detected",
    TwoWriters: 1000 "two writers of the same mailboxes",
    TwoSources: 1000 "two sources of one mailbox",
    TwoTransfers: 1000 "two transfers in one process",
    Hit: 1000 "a blob is not stored again",
    New: 1000 "a message is new",
    Changed: 1000 "a message's octets change",
    Flagged: 1000 "a message's flags change",
    Moved: 1000 "a message is moved",
    Gone: 1000 "a message is gone",
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
            let times = times * seeds.min(10_000) / 10_000;
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
