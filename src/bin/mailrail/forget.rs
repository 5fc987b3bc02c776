//! `mailrail forget`.

use crate::Status;
use crate::arguments::{Common, Forget};
use crate::failure::Failure;
use crate::output::{Account, object, print_json};
use crate::repository;
use mailrail::Settings;
use serde_json::json;

pub(crate) async fn run(common: &Common, arguments: Forget) -> Result<Status, Failure> {
    let Forget { repository: path, mailboxes, all, before } = arguments;
    let engine = common.engine(repository::open(common, &path).await?, Settings::default())?;
    let mut forget = match (mailboxes.is_empty(), all, before) {
        (false, ..) => engine.forget().mailboxes(mailboxes),
        (true, true, _) | (true, _, Some(_)) => engine.forget().all_mailboxes(),
        (true, false, None) => {
            return Err(Failure::usage(
                "say what to forget: --mailbox NAME, --before TIME, or --all for every mailbox",
            ));
        }
    };
    if let Some(before) = before {
        forget = forget.before(before);
    }
    let report = forget.finish().await?;
    if common.json {
        print_json(object(&report, json!({ "before": before }))?)?;
    } else if !common.quiet {
        let mut account = Account::default();
        account.heading(format!("Forgot in {path}"));
        account.count("mailboxes", report.mailboxes);
        account.count("nothing to forget", report.untouched);
        account.count("messages", report.messages);
        let lines = report.incomplete.iter().map(|incomplete| format!("{}: {}", incomplete.name, incomplete.reason));
        account.list("Not forgotten", lines, report.incomplete.len() as u64);
        account.line("Nothing of it can be asked for any more. Its data goes with the next `mailrail sweep`.");
        account.print()?;
    }
    Ok(Status::when(report.incomplete.is_empty()))
}
