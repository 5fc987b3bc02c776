//! `mailrail approve`.

use crate::Status;
use crate::arguments::{Approve, Common};
use crate::failure::Failure;
use crate::output::{print, print_json};
use crate::repository;
use mailrail::Settings;
use serde_json::json;

pub(crate) async fn run(common: &Common, arguments: Approve) -> Result<Status, Failure> {
    let Approve { repository: path, run, why } = arguments;
    let engine = common.engine(repository::open(common, &path).await?, Settings::default())?;
    let approval = engine.approve(run, &why).await?;
    if common.json {
        print_json(json!({ "schema": 1, "run": run, "approval": approval }))?;
    } else if !common.quiet {
        print(&format!("Approved run {run}.\n"))?;
    }
    Ok(Status::Complete)
}
