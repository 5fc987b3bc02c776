//! `mailrail restore`.

use crate::Status;
use crate::arguments::{Common, Restore};
use crate::failure::Failure;
use crate::output::{Account, failures, object, print_json};
use crate::place::is_inside;
use crate::progress::Progress;
use crate::repository;
use mailrail::restore::RestoreReport;
use mailrail::{ErrorKind, Settings};
use serde_json::json;
use std::time::{Duration, Instant};

pub(crate) async fn run(common: &Common, arguments: Restore) -> Result<Status, Failure> {
    let Restore { repository: path, sink, mailboxes, at } = arguments;
    if path.directory().is_some_and(|path| is_inside(sink.path(), path)) {
        return Err(Failure::usage("mail must not be restored into the repository"));
    }
    let started = Instant::now();
    let engine = common.engine(repository::open(common, &path).await?, Settings::default())?;
    let mut restore = engine.restore(sink.sink());
    if !mailboxes.is_empty() {
        restore = restore.mailboxes(mailboxes);
    }
    if let Some(at) = at {
        restore = restore.at(at);
    }
    let progress = Progress::new(common, "restoring");
    let report = restore.finish().await.map_err(|error| match error.kind() {
        ErrorKind::NotFound => Failure::from(error).advise("mailrail ls REPOSITORY names those that there are"),
        _ => error.into(),
    })?;
    drop(progress);
    let elapsed = started.elapsed();
    if common.json {
        print_json(object(&report, json!({ "elapsed_seconds": elapsed.as_secs_f64() }))?)?;
    } else if !common.quiet {
        let mut account = Account::default();
        account.heading(format!("Restored {path} to {sink}"));
        add(&mut account, &report, elapsed);
        if at.is_some() && report.mailboxes == 0 {
            account.line("At that time there was nothing in the repository.");
        }
        account.print()?;
    }
    Ok(Status::when(report.is_complete()))
}

/// The account of a restore, or of a recovery.
pub(crate) fn add(account: &mut Account, report: &RestoreReport, elapsed: Duration) {
    account.heading("Messages");
    account.count("restored", report.restored);
    account.count("in quarantine", report.quarantined);
    account.count("failed", report.failed);
    account.count("mailboxes", report.mailboxes);
    if report.renamed + report.unholdable + report.transformed > 0 {
        account.heading("Not as it was");
        account.count("renamed", report.renamed);
        account.count("left out", report.unholdable);
        account.count("changed", report.transformed);
    }
    account.heading("Octets");
    account.octets("of messages", report.bytes);
    account.octets("read from commits and packs", report.bytes_read);
    account.time(elapsed, report.bytes);
    account.requests(&report.requests, report.cost.as_ref());
    account.list("Failed", failures(&report.failures), report.failed);
    let notes = report.renamed + report.unholdable + report.transformed;
    account.list("What could not be put back as it was", report.notes.iter().cloned(), notes);
}
