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

events! {
    CrashIntake: "crash at intake",
    CrashPack: "crash at a pack",
    CrashCommit: "crash at a commit",
    CrashSegment: "crash at an index segment",
    CrashRecord: "crash at a run record",
    CrashIdle: "crash when idle",
    CrashRestore: "crash of a restore",
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
    Slow: "an answer is slow",
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
    Hit: "a blob is not stored again",
    New: "a message is new",
    Changed: "a message's octets change",
    Flagged: "a message's flags change",
    Moved: "a message is moved",
    Gone: "a message is gone",
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

    /// The events that happened fewer than `times` times.
    pub fn rare(&self, times: u64) -> Vec<&'static str> {
        let counted = NAMES.iter().zip(&self.0);
        counted.filter(|(_, count)| **count < times).map(|(name, _)| *name).collect()
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
