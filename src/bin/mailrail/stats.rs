//! `mailrail stats`.

use crate::Status;
use crate::arguments::{Common, Stats};
use crate::failure::Failure;
use crate::output::{Account, grouped, object, print_json, size};
use crate::terminal::printable;
use crate::{repository, values};
use mailrail::Settings;
use mailrail::reading::{Run, Statistics};
use mailrail::store::{StoreUrl, Writers};
use serde_json::json;

/// The most runs that are shown as text.
const RUNS_MAX: usize = 10;

pub(crate) async fn run(common: &Common, arguments: Stats) -> Result<Status, Failure> {
    let Stats { repository: path, probe } = arguments;
    if probe {
        return probed(common, &path).await;
    }
    let engine = common.engine(repository::open(common, &path).await?, Settings::default())?;
    let statistics = engine.statistics().await?;
    let runs = engine.runs().await?;
    if common.json {
        let history = runs.iter().map(as_json).collect::<Result<Vec<_>, _>>()?;
        print_json(object(&statistics, json!({ "stored_bytes": stored(&statistics), "history": history }))?)?;
    } else {
        let mut account = Account::default();
        account.heading(format!("Repository {path}"));
        add(&mut account, &statistics);
        history(&mut account, &runs);
        account.print()?;
    }
    Ok(Status::when(statistics.incomplete.is_empty()))
}

/// What the store's probe finds.
async fn probed(common: &Common, url: &StoreUrl) -> Result<Status, Failure> {
    let findings = url.findings(&common.store_options()).await?;
    let fit = [Writers::Any, Writers::One].map(|writers| findings.is_fit_for(writers));
    if common.json {
        print_json(json!({
            "schema": 1,
            "fit_for_any_writers": fit[0],
            "fit_for_one_writer": fit[1],
            "creating": findings.creating,
            "reading": findings.reading,
        }))?;
    } else {
        let mut account = Account::default();
        account.heading(format!("Probed {url}"));
        account.line(format!("  {findings}"));
        account.line(match fit {
            [true, _] => "  Any number of writers may write to it. (That is evidence, and no proof.)",
            [_, true] => "  One writer may, with --single-writer.",
            _ => "  Nobody should write to it.",
        });
        account.print()?;
    }
    Ok(Status::when(fit[0]))
}

fn add(account: &mut Account, statistics: &Statistics) {
    account.heading("Holds");
    account.count("mailboxes", statistics.mailboxes);
    account.count("messages", statistics.messages);
    account.octets("octets", statistics.message_bytes);
    account.count("in quarantine", statistics.quarantined);
    let lines = statistics.incomplete.iter().map(|incomplete| format!("{}: {}", incomplete.name, incomplete.reason));
    account.list("Not counted", lines, statistics.incomplete.len() as u64);
    account.heading("Takes");
    for (label, objects, octets) in [
        ("packs", statistics.packs, statistics.pack_bytes),
        ("commits", statistics.commits, statistics.commit_bytes),
        ("others", statistics.other_objects, statistics.other_bytes),
    ] {
        account.row(label, grouped(octets), format!("{}, {} objects", size(octets), grouped(objects)));
    }
    let stored = stored(statistics);
    account.octets("together", stored);
    if statistics.message_bytes > 0 && stored > 0 {
        account.row("ratio", format!("{:.2}", statistics.message_bytes as f64 / stored as f64), "held : taken");
    }
}

/// The latest runs, the latest last.
fn history(account: &mut Account, runs: &[Run]) {
    if runs.is_empty() {
        return;
    }
    account.heading(format!("Runs ({})", grouped(runs.len() as u64)));
    for run in runs.iter().skip(runs.len().saturating_sub(RUNS_MAX)) {
        let ledger = &run.ledger;
        account.line(format!(
            "  {:<18}  {}  {:>9.2} s  {:>12} stored  {:>9} read  {:>9} written  {}{}",
            run.id,
            values::shown(seconds(run.started)),
            run.ended.saturating_sub(run.started) as f64 / 1e9,
            grouped(ledger.messages.stored),
            size(ledger.bytes.read),
            size(ledger.bytes.written),
            ledger.grade(),
            run.approval
                .as_ref()
                .map_or_else(String::new, |approval| format!(", approved: {}", printable(&approval.why))),
        ));
    }
}

fn as_json(run: &Run) -> Result<serde_json::Value, Failure> {
    let more = json!({
        "run": run.id,
        "grade": run.ledger.grade(),
        "approval": run.approval,
        "started": values::shown(seconds(run.started)),
        "ended": values::shown(seconds(run.ended)),
    });
    object(&run.ledger, more)
}

fn stored(statistics: &Statistics) -> u64 {
    statistics.pack_bytes + statistics.commit_bytes + statistics.other_bytes
}

fn seconds(nanoseconds: u64) -> i64 {
    (nanoseconds / 1_000_000_000) as i64
}
