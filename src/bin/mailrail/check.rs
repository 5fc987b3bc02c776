//! `mailrail check`.

use crate::Status;
use crate::arguments::{Check, Common};
use crate::failure::Failure;
use crate::output::{Account, failures, object, print_json};
use crate::progress::Progress;
use crate::repository;
use mailrail::Settings;
use mailrail::check::CheckReport;
use serde_json::json;
use std::time::{Duration, Instant};

pub(crate) async fn run(common: &Common, arguments: Check) -> Result<Status, Failure> {
    let Check { repository: path, read_data, no_marks } = arguments;
    let started = Instant::now();
    let engine = common.engine(repository::open(common, &path).await?, Settings::default())?;
    let progress = Progress::new(common, "checking");
    let report = engine.check().read_data(read_data).mark_bad(read_data && !no_marks).finish().await?;
    drop(progress);
    let elapsed = started.elapsed();
    if common.json {
        let more = json!({ "read_data": read_data, "elapsed_seconds": elapsed.as_secs_f64() });
        print_json(object(&report, more)?)?;
    } else if !common.quiet {
        let mut account = Account::default();
        account.heading(format!("Checked {path}"));
        add(&mut account, &report, read_data, elapsed);
        account.print()?;
    }
    Ok(Status::when(report.is_sound()))
}

fn add(account: &mut Account, report: &CheckReport, read_data: bool, elapsed: Duration) {
    account.heading("Repository");
    account.count("mailboxes", report.mailboxes);
    account.count("commits", report.commits);
    account.count("messages", report.messages);
    account.count("packs", report.packs);
    account.count("of no commit", report.orphans);
    account.count("blobs", report.blobs);
    account.count("derived objects", report.derived);
    if read_data {
        account.heading("Data");
        account.count("rebuilt", report.rebuilt);
        account.octets("read", report.bytes_read);
    }
    account.heading("Damage");
    account.count("damages", report.damages);
    account.count("messages touched", report.messages_touched);
    account.count("packs healed", report.healed);
    account.count("packs moved", report.moved);
    account.count("packs marked", report.marked);
    account.time(elapsed, report.bytes_read);
    let damaged = report.damaged.iter().map(|damage| format!("{}: {}", damage.object, damage.what));
    account.list("Damaged", damaged, report.damages);
    account.list("Messages touched", failures(&report.touched), report.messages_touched);
    account.list("Notes", report.notes.iter().cloned(), report.notes.len() as u64);
    account.line(match (report.is_sound(), read_data) {
        (true, true) => "Sound: every message was rebuilt and verified.",
        (true, false) => {
            "Sound: everything that is named exists. With --read-data every message is rebuilt and verified."
        }
        (false, _) => "Not sound. What is not touched can be restored; push --reread and repair bring back what the source still has.",
    });
}
