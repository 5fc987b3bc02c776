//! Fences: what keeps a commit that was prepared before a sweep from landing after it.

use crate::error::{Error, ErrorKind, Result};
use crate::message::MailboxName;
use crate::repository::{
    Contest, Draft, JournalName, Place, Repository, RunRecord, Token, chains, create_commit, create_run_record,
    read_run_record, read_verdict, run_key,
};
use std::collections::{BTreeMap, BTreeSet};

/// The writers that are not known to have ended.
#[derive(Debug, Default)]
pub(super) struct Live {
    /// Those that may still commit: registered, not ended, not fenced.
    pub(super) writers: BTreeSet<Token>,
    /// There are chains whose last record was lost. Somebody vouches that their writers are dead, and a fence is to say so.
    pub(super) is_any_lost: bool,
}

/// Who may write.
///
/// # Errors
/// Damage of a last record: it may be of a writer that lives. Unless `is_alone` (nobody writes): then a record that was lost is of nobody.
pub(super) async fn live(repository: &Repository, is_alone: bool) -> Result<Live> {
    let mut live = Live::default();
    for (token, last) in last_records(repository).await? {
        match read_run_record(repository, &token, last).await? {
            Some(RunRecord::Active(_)) => drop(live.writers.insert(token)),
            Some(RunRecord::Lost { .. }) if !is_alone => return Err(lost(&token, last)),
            Some(RunRecord::Lost { .. }) => live.is_any_lost = true,
            _ => {}
        }
    }
    Ok(live)
}

fn lost(token: &Token, number: u64) -> Error {
    let key = run_key(token, number);
    Error::damaged(format!(
        "'{key}' was damaged, so nobody knows whether that run goes on: sweep when no run does, and say so"
    ))
}

/// What was fenced.
#[derive(Debug, Default)]
pub(super) struct Fenced {
    /// Those whose chain and all of whose journals are fenced, in this order.
    pub(super) writers: BTreeSet<Token>,
    pub(super) journals: u64,
}

/// Fences every writer that may not know of this sweep: first its chain, so that it declares nothing more; then the journals that it declared.
pub(super) async fn fence(repository: &Repository, epoch: u64, is_alone: bool) -> Result<Fenced> {
    let mut fenced = Fenced::default();
    let mut journals = BTreeSet::new();
    for (token, last) in last_records(repository).await? {
        if let Some(declared) = fence_chain(repository, &token, last, (epoch, is_alone)).await? {
            fenced.writers.insert(token);
            journals.extend(declared);
        }
    }
    let writer = repository.new_token()?;
    for mailbox in journals {
        fence_journal(repository, &mailbox, epoch, writer).await?;
        fenced.journals += 1;
    }
    Ok(fenced)
}

/// The number of the last record of each writer.
async fn last_records(repository: &Repository) -> Result<BTreeMap<Token, u64>> {
    let chains = chains(repository).await?;
    Ok(chains.into_iter().filter_map(|(token, numbers)| Some((token, *numbers.last()?))).collect())
}

/// Takes the next number of a chain, unless the run has ended or a sweep took it. Gives the mailboxes that the writer declared.
///
/// Also where an earlier sweep took it: that may have been done for all others when one who slept over it fenced this chain, and has not come to the
/// journals yet. Once somebody has, the record that declares them is deleted.
async fn fence_chain(
    repository: &Repository,
    token: &Token,
    mut last: u64,
    (epoch, is_alone): (u64, bool),
) -> Result<Option<Vec<MailboxName>>> {
    loop {
        match read_run_record(repository, token, last).await? {
            // It ended long ago, and another sweep has deleted its record since it was listed.
            None => return Ok(None),
            Some(RunRecord::Ended(_) | RunRecord::Noted(_)) => return Ok(None),
            Some(RunRecord::Lost { .. }) if is_alone => {
                // Whoever sweeps next need not be told again: with this fence the lost record goes.
                let fence = RunRecord::Fence { written: repository.now(), epoch };
                if create_run_record(repository, token, last + 1, &fence).await?.is_some() {
                    return Ok(Some(Vec::new()));
                }
                last += 1;
            }
            Some(RunRecord::Lost { .. }) => return Err(lost(token, last)),
            Some(RunRecord::Fence { epoch: by, .. }) => {
                let Some(before) = last.checked_sub(1) else { return Ok(None) };
                return match read_run_record(repository, token, before).await? {
                    Some(RunRecord::Active(active)) => Ok(Some(active.mailboxes)),
                    Some(_) if is_alone => Ok(Some(Vec::new())),
                    Some(_) => Err(lost(token, before)),
                    // All fences were made, and the sweep is over for others: they have deleted the record.
                    None if is_alone || by < epoch || is_judged(repository, epoch).await? => Ok(None),
                    None => Err(Error::damaged("a writer's last record before its fence is missing")),
                };
            }
            Some(RunRecord::Active(active)) => {
                let fence = RunRecord::Fence { written: repository.now(), epoch };
                if create_run_record(repository, token, last + 1, &fence).await?.is_some() {
                    return Ok(Some(active.mailboxes));
                }
                last += 1;
            }
        }
    }
}

/// Whether there is a verdict, even if it does not open.
async fn is_judged(repository: &Repository, epoch: u64) -> Result<bool> {
    match read_verdict(repository, epoch).await {
        Err(error) if error.kind() == ErrorKind::Damaged => Ok(true),
        verdict => Ok(verdict?.is_some()),
    }
}

/// Puts a fence at the end of a journal: who commits behind it has read it. Also if one of this sweep is there: a writer whose chain was fenced only now
/// may have registered behind that one.
async fn fence_journal(repository: &Repository, mailbox: &MailboxName, epoch: u64, writer: Token) -> Result<()> {
    let name = JournalName::new(repository, mailbox);
    let mut contest = Contest::default();
    loop {
        let last = name.last(repository).await?;
        let head = last.as_ref().map(|last| &last.reader.head);
        let place = Place {
            mailbox: mailbox.clone(),
            sequence: head.map_or(0, |head| head.sequence + 1),
            previous: last.as_ref().map(|last| last.reader.digest),
            writer,
            time: repository.now().max(head.map_or(0, |head| head.time + 1)),
            first_ordinal: head.map_or(0, |head| head.first_ordinal + u64::from(head.rows)),
            checkpoint: head.and_then(|head| head.checkpoint),
            forgotten: head.and_then(|head| head.forgotten),
            // Of a sweeper that slept through later sweeps, too.
            epoch: head.map_or(epoch, |head| head.epoch.max(epoch)),
            is_void: head.is_none_or(|head| head.is_void),
        };
        if create_commit(repository, name, &Draft::default(), &place).await? {
            return Ok(());
        }
        contest.lose(place.sequence)?;
    }
}
