//! `mailrail sweep`.

use crate::Status;
use crate::arguments::{Common, Sweep};
use crate::failure::Failure;
use crate::output::{Account, object, print_json, size};
use crate::progress::Progress;
use crate::repository;
use mailrail::Settings;
use mailrail::sweep::{Counted, SweepReport};
use serde_json::json;
use std::time::{Duration, Instant};

pub(crate) async fn run(common: &Common, arguments: Sweep) -> Result<Status, Failure> {
    let Sweep { repository: path, dry_run, alone } = arguments;
    let started = Instant::now();
    let engine = common.engine(repository::open(common, &path).await?, Settings::default())?;
    let progress = Progress::new(common, "sweeping");
    let report = engine.sweep().dry_run(dry_run).alone(alone).finish().await?;
    drop(progress);
    let elapsed = started.elapsed();
    if common.json {
        let more = json!({ "bytes_freed": report.bytes_freed(), "elapsed_seconds": elapsed.as_secs_f64() });
        print_json(object(&report, more)?)?;
    } else if !common.quiet {
        let mut account = Account::default();
        let did = if dry_run { "Looked at" } else { "Swept" };
        account.heading(format!("{did} {path}"));
        add(&mut account, &report, elapsed);
        account.print()?;
    }
    Ok(Status::Complete)
}

fn add(account: &mut Account, report: &SweepReport, elapsed: Duration) {
    let row = |account: &mut Account, label: &str, counted: Counted| {
        account.row(label, counted.objects, size(counted.bytes));
    };
    account.heading(if report.dry_run { "Would go" } else { "Gone" });
    row(account, "packs", report.deleted_packs);
    row(account, "commits", report.deleted_commits);
    row(account, "mostly dead packs", if report.dry_run { report.mostly_dead } else { report.moved_packs });
    if !report.dry_run {
        row(account, "index segments", report.deleted_segments);
        row(account, "run records", report.deleted_records);
    }
    account.heading("Left");
    account.count("packs", report.packs_left());
    row(account, "partly needed", report.partly_needed);
    row(account, "written anew", report.written_packs);
    row(account, "of live writers", report.spared);
    account.count("pardoned", report.pardoned);
    account.heading("Writers");
    account.count("fenced", report.fenced_writers);
    account.count("journals fenced", report.fenced_journals);
    account.time(elapsed, report.bytes_freed());
    if report.resumed > 0 {
        account.line("A sweep that had not come to its end was carried out first.");
    }
}
