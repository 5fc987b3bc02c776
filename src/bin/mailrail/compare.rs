//! `mailrail compare`.

use crate::Status;
use crate::arguments::{Common, Compare};
use crate::failure::Failure;
use crate::output::{Account, named, object, print_json};
use crate::progress::Progress;
use crate::repository;
use mailrail::Settings;
use mailrail::compare::CompareReport;
use serde_json::json;
use std::time::{Duration, Instant};

pub(crate) async fn run(common: &Common, arguments: Compare) -> Result<Status, Failure> {
    let Compare { source, repository: path } = arguments;
    let started = Instant::now();
    let engine = common.engine(repository::open(common, &path).await?, Settings::default())?;
    let progress = Progress::new(common, "comparing");
    let report = engine.compare(source.source()?).finish().await?;
    drop(progress);
    let elapsed = started.elapsed();
    if common.json {
        print_json(object(&report, json!({ "elapsed_seconds": elapsed.as_secs_f64() }))?)?;
    } else if !common.quiet {
        let mut account = Account::default();
        account.heading(format!("Compared {source} with {path}"));
        add(&mut account, &report, elapsed);
        account.print()?;
    }
    Ok(Status::when(report.is_same()))
}

fn add(account: &mut Account, report: &CompareReport, elapsed: Duration) {
    account.heading("In the source");
    account.count("mailboxes", report.mailboxes);
    account.count("messages", report.messages);
    account.octets("octets", report.bytes);
    account.heading("In the repository");
    account.count("same", report.same);
    account.count("missing", report.missing);
    account.count("different", report.different);
    account.count("changed", report.changed);
    account.count("moved", report.moved);
    account.count("not in the source", report.extra);
    account.count("folders of one", report.folders);
    account.count("unreadable", report.unreadable);
    account.time(elapsed, report.bytes);
    let differences = report
        .differences
        .iter()
        .map(|difference| named([&difference.mailbox, &difference.folder, &difference.message], &difference.what));
    let counted = report.missing + report.different + report.changed + report.moved + report.extra + report.folders;
    let total = (counted + report.unreadable).max(report.differences.len() as u64);
    account.list("Differences", differences, total);
    let lines = report.incomplete.iter().map(|incomplete| format!("{}: {}", incomplete.name, incomplete.reason));
    account.list("Could not be looked through", lines, report.incomplete.len() as u64);
    account.line(match report.is_same() {
        true => "Source and repository are the same.",
        false => "Source and repository differ.",
    });
}
