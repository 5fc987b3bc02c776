//! What a process is at when it asks for something: a blow falls in a phase.

use super::{Part, Phase, State};
use crate::coverage::Event;
use crate::objects::{Answer, Call, Reply};
use mailrail::store::Created;

/// How far a sweep is, as its operations tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Stage {
    #[default]
    Looking,
    Fencing,
    ReadingAgain,
    Deleting,
    Done,
    Tidying,
}

impl State {
    /// The phase that a process is in with this call.
    pub(super) fn phase(&mut self, process: usize, call: &Call) -> Option<Phase> {
        let process = &mut self.processes[process];
        match (process.part, call) {
            (_, Call::Sleep(_)) => None,
            (_, Call::Idle) => Some(Phase::Idle),
            (Part::Write, _) => Some(written(call)),
            (Part::Read, _) => Some(Phase::Restore),
            (Part::Forget, _) => call.is_commit().then_some(Phase::Forget),
            (Part::Sweep, _) => {
                let (phase, stage) = swept(call, process.stage);
                process.stage = stage;
                Some(phase)
            }
        }
    }

    /// Counts what an operation of a sweep came to.
    pub(super) fn count_sweep(&mut self, call: &Call, reply: &Reply, was_there: bool) {
        let event = match (call, reply) {
            (Call::Create(key, _), Ok(Answer::Created(created))) => match (sweep_record(key), created) {
                (Some(""), Created::New) => Event::Marked,
                (Some(""), Created::Exists) => Event::MarkTaken,
                (Some("verdict"), Created::Exists) => Event::VerdictTaken,
                _ => return,
            },
            (Call::Delete(key), Ok(_)) if was_there && key.starts_with("packs/") => Event::PackDeleted,
            (Call::Delete(key), Ok(_)) if was_there && key.starts_with("mailboxes/") => Event::CommitDeleted,
            _ => return,
        };
        self.coverage.count(event);
    }
}

fn written(call: &Call) -> Phase {
    match call {
        Call::Put(key, _) if key.starts_with("packs/") => Phase::Pack,
        Call::Put(key, _) if key.starts_with("index/") => Phase::Segment,
        Call::Put(key, _) | Call::Create(key, _) if key.starts_with("runs/") => Phase::Record,
        Call::Create(key, _) if key.starts_with("mailboxes/") => Phase::Commit,
        _ => Phase::Intake,
    }
}

/// The phase of a sweep's operation, and the stage after it.
fn swept(call: &Call, stage: Stage) -> (Phase, Stage) {
    match call {
        Call::Create(key, _) => match sweep_record(key) {
            Some("") => return (Phase::Mark, Stage::Fencing),
            Some("verdict") => return (Phase::Verdict, Stage::Deleting),
            Some("done") => return (Phase::Done, Stage::Done),
            _ => {}
        },
        Call::Put(key, _) if key.starts_with("packs/") || key.starts_with("moves/") => {
            return (Phase::Rewrite, stage);
        }
        // The mark is read when a sweep is carried out, and no earlier.
        Call::Read(key, _) if sweep_record(key) == Some("") => return (Phase::Fence, Stage::Fencing),
        // What is to be deleted is asked for first; with a verdict that was there already nothing else is.
        Call::Length(key) if key.starts_with("packs/") => return (Phase::Delete, Stage::Deleting),
        Call::Delete(_) if stage != Stage::Tidying => return (Phase::Delete, Stage::Deleting),
        Call::List(prefix) if prefix == "mailboxes/" && stage == Stage::Fencing => {
            return (Phase::ReadAgain, Stage::ReadingAgain);
        }
        Call::List(prefix) if prefix == "packs/" && stage == Stage::Done => return (Phase::Look, Stage::Looking),
        Call::List(prefix) if prefix == "index/" => return (Phase::Tidy, Stage::Tidying),
        _ => {}
    }
    let phase = match stage {
        Stage::Looking => Phase::Look,
        Stage::Fencing => Phase::Fence,
        Stage::ReadingAgain => Phase::ReadAgain,
        Stage::Deleting => Phase::Delete,
        Stage::Done | Stage::Tidying => Phase::Tidy,
    };
    (phase, stage)
}

/// What a record of a sweep says: "" for a mark, "verdict", "done".
fn sweep_record(key: &str) -> Option<&str> {
    let name = key.strip_prefix("sweeps/")?;
    Some(name.split_once('-').map_or("", |(_, what)| what))
}
