//! `mailrail push`.

use crate::Status;
use crate::arguments::{Common, Push};
use crate::failure::Failure;
use crate::output::{Account, named, object, print_json};
use crate::place::is_inside;
use crate::progress::Progress;
use crate::{interrupt, repository};
use futures::StreamExt;
use mailrail::Settings;
use mailrail::message::Identity;
use mailrail::source::Reason;
use mailrail::transfer::{Outcome, Report, Settled, Transfer};
use serde_json::json;
use std::fmt::Display;
use std::future::poll_fn;
use std::task::Poll;
use std::time::{Duration, Instant};

/// The most quarantined messages that are named.
const NAMED_MAX: usize = 1_000;

/// What is in quarantine: mailbox, folder, message, why.
type Quarantined = Vec<(String, String, String, Reason)>;

pub(crate) async fn run(common: &Common, arguments: Push) -> Result<Status, Failure> {
    let Push { source: place, repository: path, no_encryption, reread, compression, max_quarantined } = arguments;
    if no_encryption && common.names_key() {
        return Err(Failure::usage("a key and --no-encryption exclude each other"));
    }
    if path.directory().is_some_and(|path| is_inside(path, place.path())) {
        return Err(Failure::usage("the repository must not be inside of the source"));
    }
    if path.directory().is_some_and(|path| is_inside(place.path(), path)) {
        return Err(Failure::usage("the source must not be inside of the repository"));
    }
    // Whether there is a source that can be read must be known before a repository is created for it.
    let source = place.source()?;
    drop(source.mailboxes()?);
    let started = Instant::now();
    let repository = repository::open_or_create(common, &path, no_encryption).await?;
    let mut settings = Settings::default();
    (settings.reread, settings.compression, settings.quarantined_max) = (reread, compression, max_quarantined);
    let engine = common.engine(repository, settings)?;
    let transfer = engine.transfer(source).shutdown_on(interrupt::first()?);
    let (report, quarantined) = drive(transfer, Progress::new(common, "pushing")).await?;
    let elapsed = started.elapsed();
    if report.ledger.messages.seen == report.ledger.messages.excluded && report.ledger.is_complete() {
        eprintln!("warning: there are no messages in {place}");
    }
    if common.json {
        print_json(as_json(&report, &quarantined, elapsed)?)?;
    } else if !common.quiet {
        let mut account = Account::default();
        account.heading(format!("Pushed {place} to {path}"));
        add(&mut account, &report, &quarantined, elapsed);
        account.print()?;
    }
    Ok(Status::when(report.ledger.is_complete() && !report.stopped))
}

/// Drives a transfer to its end.
pub(crate) async fn drive(mut transfer: Transfer, progress: Progress) -> Result<(Report, Quarantined), Failure> {
    let mut quarantined = Vec::new();
    poll_fn(|context| {
        loop {
            match transfer.poll_next_unpin(context) {
                Poll::Ready(Some(outcome)) => note(outcome, &mut quarantined),
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Pending => {
                    progress.show(transfer.ledger());
                    return Poll::Pending;
                }
            }
        }
    })
    .await;
    Ok((transfer.finish().await?, quarantined))
}

fn note(outcome: Outcome, quarantined: &mut Quarantined) {
    if let Settled::Quarantined { reason } = outcome.settled
        && quarantined.len() < NAMED_MAX
    {
        let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
        let message = match &outcome.identity {
            Identity::Named(name) => text(name),
            _ => String::new(),
        };
        quarantined.push((outcome.mailbox.to_string(), text(&outcome.folder), message, reason));
    }
}

fn as_json(report: &Report, quarantined: &Quarantined, elapsed: Duration) -> Result<serde_json::Value, Failure> {
    let quarantine: Vec<_> = quarantined
        .iter()
        .map(|(mailbox, folder, message, reason)| {
            json!({ "mailbox": mailbox, "folder": folder, "message": message, "reason": reason })
        })
        .collect();
    object(report, json!({ "elapsed_seconds": elapsed.as_secs_f64(), "quarantine": quarantine }))
}

fn add(account: &mut Account, report: &Report, quarantined: &Quarantined, elapsed: Duration) {
    let ledger = &report.ledger;
    let (messages, bytes, changes) = (&ledger.messages, &ledger.bytes, &ledger.changes);
    account.heading("Messages");
    account.count("seen", messages.seen);
    account.count("stored", messages.stored);
    account.count("unchanged", messages.unchanged);
    account.count("quarantined", messages.quarantined);
    account.count("excluded", messages.excluded);
    account.count("pending", messages.pending);
    if changes.flags + changes.moved + changes.gone > 0 {
        account.heading("Changes");
        account.count("other flags", changes.flags);
        account.count("other folder", changes.moved);
        account.count("gone", changes.gone);
    }
    account.heading("Octets");
    account.octets("read", bytes.read);
    account.octets("content", bytes.content);
    account.octets("duplicate", bytes.duplicate);
    account.octets("written", bytes.written);
    if bytes.read > 0 && bytes.written > 0 {
        account.row("ratio", format!("{:.2}", bytes.read as f64 / bytes.written as f64), "read : written");
    }
    account.heading("Repository");
    account.count("mailboxes", ledger.mailboxes);
    account.count("objects written", ledger.objects);
    account.time(elapsed, bytes.read);
    account.shares(&report.time);
    account.requests(&report.requests, report.cost.as_ref());
    graded(account, report);
    reasons(account, "In quarantine", messages.reasons.iter());
    let lines = quarantined.iter().map(|(mailbox, folder, message, reason)| named([mailbox, folder, message], reason));
    account.list("Messages in quarantine (the next push tries them again)", lines, messages.quarantined);
    reasons(account, "Excluded, for they are no messages", messages.exclusions.iter());
    let lines = ledger.incomplete.iter().map(|incomplete| format!("{}: {}", incomplete.name, incomplete.reason));
    account.list("Could not be looked through", lines, ledger.incomplete.len() as u64 + ledger.incomplete_unnamed);
    if report.quarantine_exceeded {
        account.line("Ended: more messages are in quarantine than --max-quarantined allows. What was begun is stored.");
    } else if report.stopped {
        account.line("Interrupted: what was begun is stored. Push again to go on.");
    }
}

/// The run's name and grade, and what is asked of whoever reads it.
fn graded(account: &mut Account, report: &Report) {
    account.heading("Run");
    account.row("grade", report.grade, "");
    if let Some(run) = report.run {
        account.row("name", run, "");
        if report.grade.needs_approval() {
            account.line(format!(
                "  Look at what is named below. If it is good enough: mailrail approve REPOSITORY {run} --why TEXT"
            ));
        }
    }
}

fn reasons<'a, R: Display + 'a>(account: &mut Account, heading: &str, counts: impl Iterator<Item = (R, &'a u64)>) {
    for (number, (reason, count)) in counts.enumerate() {
        if number == 0 {
            account.heading(heading);
        }
        account.count(&reason.to_string(), *count);
    }
}
