//! `mailrail recover`.

use crate::Status;
use crate::arguments::{Common, Recover};
use crate::failure::Failure;
use crate::output::{Account, object, print_json};
use crate::place::is_inside;
use crate::progress::Progress;
use crate::{repository, restore};
use mailrail::Settings;
use serde_json::json;
use std::time::Instant;

pub(crate) async fn run(common: &Common, arguments: Recover) -> Result<Status, Failure> {
    let Recover { repository: path, sink } = arguments;
    if path.directory().is_some_and(|path| is_inside(sink.path(), path)) {
        return Err(Failure::usage("mail must not be recovered into the repository"));
    }
    let started = Instant::now();
    let engine = common.engine(repository::open(common, &path).await?, Settings::default())?;
    let progress = Progress::new(common, "recovering");
    let report = engine.recover(sink.sink()).finish().await?;
    drop(progress);
    let elapsed = started.elapsed();
    if common.json {
        print_json(object(&report, json!({ "elapsed_seconds": elapsed.as_secs_f64() }))?)?;
    } else if !common.quiet {
        let mut account = Account::default();
        account.heading(format!("Recovered {path} to {sink}"));
        restore::add(&mut account, &report, elapsed);
        account.print()?;
    }
    Ok(Status::when(report.is_complete()))
}
