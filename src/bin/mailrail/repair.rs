//! `mailrail repair`.

use crate::Status;
use crate::arguments::{Common, Repair};
use crate::failure::Failure;
use crate::output::{Account, named, object, print_json};
use crate::progress::Progress;
use crate::repository;
use mailrail::Settings;
use mailrail::repair::RepairReport;
use serde_json::json;
use std::time::{Duration, Instant};

pub(crate) async fn run(common: &Common, arguments: Repair) -> Result<Status, Failure> {
    let Repair { repository: path, read_data, give_up } = arguments;
    let started = Instant::now();
    let engine = common.engine(repository::open(common, &path).await?, Settings::default())?;
    let progress = Progress::new(common, "repairing");
    let report = engine.repair().read_data(read_data).give_up(give_up).finish().await?;
    drop(progress);
    let elapsed = started.elapsed();
    if common.json {
        let more = json!({ "read_data": read_data, "elapsed_seconds": elapsed.as_secs_f64() });
        print_json(object(&report, more)?)?;
    } else if !common.quiet {
        let mut account = Account::default();
        account.heading(format!("Repaired {path}"));
        add(&mut account, &report, elapsed);
        account.print()?;
    }
    Ok(Status::when(report.is_whole()))
}

fn add(account: &mut Account, report: &RepairReport, elapsed: Duration) {
    account.heading("Packs");
    account.count("there were", report.packs);
    account.count("bad", report.packs_bad);
    account.count("not given", report.unreadable.len() as u64);
    account.count("marks taken away", report.packs_unmarked);
    account.count("written anew", report.packs_written);
    account.heading("Blobs");
    account.count("salvaged", report.blobs_salvaged);
    account.count("found elsewhere", report.blobs_found);
    account.count("lost", report.blobs_lost);
    account.heading("Derived objects");
    account.count("segments written", report.segments_written);
    account.count("records written", report.records_written);
    account.heading("Commits");
    account.count("mailboxes that go on without", report.given_up);
    account.heading("Messages");
    account.count("lost", report.messages_lost);
    account.time(elapsed, 0);
    account.list("Replaced", report.replaced.iter().cloned(), report.replaced.len() as u64);
    let lost =
        report.lost.iter().map(|failure| named([&failure.mailbox, &failure.folder, &failure.message], &failure.reason));
    account.list("Lost", lost, report.lost.len() as u64);
    account.list("Not given by the store", report.unreadable.iter().cloned(), report.unreadable.len() as u64);
    account.line(match (report.is_whole(), report.blobs_lost) {
        (false, 0) if report.lost.is_empty() => "Not whole: some packs cannot be read now. Repair again when they can; recover brings back what else there is.",
        (true, _) => "Nothing is lost.",
        (false, 0) if report.given_up > 0 => "What could not be read is given up: push again, and what the source still has is there again.",
        (false, 0) => "Not whole: commits cannot be read. recover brings back all other messages; --give-up lets mailboxes go on without them.",
        (false, _) => "Not whole. If the source still has the mail: push --reread, then repair again.",
    });
}
