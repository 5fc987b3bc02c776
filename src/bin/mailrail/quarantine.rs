//! `mailrail quarantine`.

use crate::Status;
use crate::arguments::{Common, Quarantine};
use crate::failure::Failure;
use crate::ls::{name, shown};
use crate::output::{Account, failures, grouped, named, object, print, print_json};
use crate::place::is_inside;
use crate::repository;
use crate::terminal::printable;
use mailrail::message::MailboxName;
use mailrail::reading::MessageInfo;
use mailrail::repository::Mailboxes;
use mailrail::{Engine, Settings, sink};
use serde_json::{Value, json};
use std::path::Path;

pub(crate) async fn run(common: &Common, arguments: Quarantine) -> Result<Status, Failure> {
    match arguments {
        Quarantine::Ls { repository: path, mailbox } => {
            let engine = common.engine(repository::open(common, &path).await?, Settings::default())?;
            list(common, &engine, mailbox).await
        }
        Quarantine::Export { repository: path, directory, mailboxes } => {
            if path.directory().is_some_and(|path| is_inside(&directory, path)) {
                return Err(Failure::usage("mail must not be exported into the repository"));
            }
            let engine = common.engine(repository::open(common, &path).await?, Settings::default())?;
            export(common, &engine, &directory, mailboxes).await
        }
    }
}

/// All messages in quarantine. A mailbox that cannot be read does not keep the others from being listed.
async fn list(common: &Common, engine: &Engine, mailbox: Option<MailboxName>) -> Result<Status, Failure> {
    let mut status = Status::Complete;
    let mut listed = Vec::new();
    let is_one = mailbox.is_some();
    let mailboxes = match mailbox {
        Some(mailbox) => vec![mailbox],
        None => {
            let Mailboxes { names, unreadable, .. } = engine.repository().find_mailboxes().await?;
            for journal in unreadable {
                status = Status::Incomplete;
                eprintln!("warning: {}: {}", shown(&journal.name()), Failure::from(journal.error).text());
            }
            names
        }
    };
    for mailbox in mailboxes {
        match engine.quarantined(&mailbox).await {
            Ok(messages) if common.json => listed.extend(messages.iter().map(|message| as_json(&mailbox, message))),
            Ok(messages) => messages.iter().try_for_each(|message| print(&line(&mailbox, message)))?,
            Err(error) if is_one => return Err(error.into()),
            Err(error) => {
                status = Status::Incomplete;
                eprintln!("warning: {}: {}", shown(&mailbox), Failure::from(error).text());
            }
        }
    }
    if common.json {
        print_json(json!({ "schema": 1, "quarantine": listed }))?;
    }
    Ok(status)
}

fn line(mailbox: &MailboxName, message: &MessageInfo) -> String {
    let folder = String::from_utf8_lossy(&message.folder);
    let reason = message.quarantine.map_or_else(String::new, |reason| reason.to_string());
    let what = format!("{reason} ({} octets could be read)", grouped(message.length));
    printable(&named([&mailbox.to_string(), &folder, &name(message)], what)) + "\n"
}

fn as_json(mailbox: &MailboxName, message: &MessageInfo) -> Value {
    json!({
        "mailbox": mailbox.to_string(),
        "folder": String::from_utf8_lossy(&message.folder),
        "message": name(message),
        "ordinal": message.ordinal,
        "reason": message.quarantine,
        "readable_bytes": message.length,
    })
}

async fn export(
    common: &Common,
    engine: &Engine,
    directory: &Path,
    mailboxes: Vec<MailboxName>,
) -> Result<Status, Failure> {
    let mut restore = engine.restore(sink::Eml::new(directory)).only_quarantined();
    if !mailboxes.is_empty() {
        restore = restore.mailboxes(mailboxes);
    }
    let report = restore.finish().await?;
    if common.json {
        print_json(object(&report, json!({}))?)?;
    } else if !common.quiet {
        let mut account = Account::default();
        account.heading(format!("Exported what could be read of messages in quarantine to {}", directory.display()));
        account.count("exported", report.restored);
        account.count("failed", report.failed);
        account.octets("octets", report.bytes);
        account.list("Failed", failures(&report.failures), report.failed);
        account.print()?;
    }
    Ok(Status::when(report.failed == 0))
}
