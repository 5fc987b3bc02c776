//! `mailrail ls`.

use crate::Status;
use crate::arguments::{Common, Ls};
use crate::failure::Failure;
use crate::output::{grouped, print, print_json};
use crate::terminal::printable;
use crate::{repository, values};
use mailrail::message::{Flags, Identity, MailboxName, SystemFlags};
use mailrail::reading::{MailboxListing, MessageInfo};
use mailrail::repository::Mailboxes;
use mailrail::{Engine, ErrorKind, Settings};
use serde_json::{Value, json};

/// Flags as Maildir has them, in alphabetical order, with their names.
const FLAGS: [(SystemFlags, char, &str); 6] = [
    (SystemFlags::DRAFT, 'D', "draft"),
    (SystemFlags::FLAGGED, 'F', "flagged"),
    (SystemFlags::PASSED, 'P', "passed"),
    (SystemFlags::ANSWERED, 'R', "answered"),
    (SystemFlags::SEEN, 'S', "seen"),
    (SystemFlags::DELETED, 'T', "deleted"),
];

pub(crate) async fn run(common: &Common, arguments: Ls) -> Result<Status, Failure> {
    let Ls { repository: path, mailbox, at } = arguments;
    let engine = common.engine(repository::open(common, &path).await?, Settings::default())?;
    match mailbox {
        Some(mailbox) => messages(common, &engine, &mailbox, at).await,
        None => mailboxes(common, &engine, at).await,
    }
}

/// All mailboxes with what is in them. One that cannot be read does not keep the others from being listed.
async fn mailboxes(common: &Common, engine: &Engine, at: Option<u64>) -> Result<Status, Failure> {
    let mut status = Status::Complete;
    let mut listed = Vec::new();
    if !common.json {
        print(&format!("{:>14}  {:>20}  {}\n", "messages", "octets", "mailbox"))?;
    }
    let Mailboxes { names, unreadable, .. } = engine.repository().find_mailboxes().await?;
    for journal in unreadable {
        status = Status::Incomplete;
        eprintln!("warning: {}: {}", shown(&journal.name()), Failure::from(journal.error).text());
    }
    for name in names {
        let shown = shown(&name);
        match engine.messages(&name, at).await {
            Ok(listing) => {
                let count = listing.messages.len() as u64;
                let octets: u64 = listing.messages.iter().map(|message| message.length).sum();
                if common.json {
                    listed.push(json!({ "mailbox": name.to_string(), "messages": count, "bytes": octets }));
                } else {
                    print(&format!("{:>14}  {:>20}  {shown}\n", grouped(count), grouped(octets)))?;
                }
            }
            // It came later than that.
            Err(error) if at.is_some() && error.kind() == ErrorKind::NotFound => {}
            Err(error) => {
                status = Status::Incomplete;
                eprintln!("warning: {shown}: {}", Failure::from(error).text());
            }
        }
    }
    if common.json {
        print_json(json!({ "schema": 1, "mailboxes": listed }))?;
    }
    Ok(status)
}

async fn messages(common: &Common, engine: &Engine, mailbox: &MailboxName, at: Option<u64>) -> Result<Status, Failure> {
    let mut listing = engine.messages(mailbox, at).await?;
    listing.messages.sort_by(|a, b| (&a.folder, a.ordinal).cmp(&(&b.folder, b.ordinal)));
    if common.json {
        print_json(as_json(mailbox, &listing))?;
    } else {
        let mut text = format!("{:<20}  {:>14}  {:<6}  {}\n", "arrived", "octets", "flags", "folder/message");
        listing.messages.iter().for_each(|message| text += &line(message));
        print(&text)?;
    }
    Ok(Status::Complete)
}

fn line(message: &MessageInfo) -> String {
    let arrived = message.internal_date.map_or_else(|| "-".into(), |date| values::shown(date.seconds));
    let folder = printable(&String::from_utf8_lossy(&message.folder));
    let name = printable(&name(message));
    let slash = if folder.is_empty() { "" } else { "/" };
    let quarantine = message.quarantine.map_or_else(String::new, |reason| format!("  (in quarantine: {reason})"));
    let (length, flags) = (grouped(message.length), letters(&message.flags));
    format!("{arrived:<20}  {length:>14}  {flags:<6}  {folder}{slash}{name}{quarantine}\n")
}

fn as_json(mailbox: &MailboxName, listing: &MailboxListing) -> Value {
    let folders: Vec<_> = listing
        .folders
        .iter()
        .map(|folder| json!({ "names": folder.path.names, "raw": String::from_utf8_lossy(&folder.path.raw) }))
        .collect();
    let messages: Vec<_> = listing.messages.iter().map(message_as_json).collect();
    json!({ "schema": 1, "mailbox": mailbox.to_string(), "folders": folders, "messages": messages })
}

fn message_as_json(message: &MessageInfo) -> Value {
    let set = FLAGS.iter().filter(|(flag, ..)| message.flags.system.contains(*flag));
    json!({
        "ordinal": message.ordinal,
        "folder": String::from_utf8_lossy(&message.folder),
        "name": name(message),
        "flags": set.map(|(_, _, name)| *name).collect::<Vec<_>>(),
        "keywords": message.flags.keywords(),
        "internal_date": message.internal_date.map(|date| values::shown(date.seconds)),
        "bytes": message.length,
        "quarantine": message.quarantine,
    })
}

/// What names the message; in an mbox nothing does, so it goes by its number in the mailbox.
pub(crate) fn name(message: &MessageInfo) -> String {
    match &message.identity {
        Identity::Named(name) => String::from_utf8_lossy(name).into_owned(),
        _ => format!("#{}", message.ordinal),
    }
}

fn letters(flags: &Flags) -> String {
    FLAGS.iter().map(|(flag, letter, _)| if flags.system.contains(*flag) { *letter } else { '-' }).collect()
}

/// A mailbox's name; that of the mailbox at the root of a tree is empty.
pub(crate) fn shown(name: &MailboxName) -> String {
    if name.as_bytes().is_empty() { "''".into() } else { printable(&name.to_string()) }
}
