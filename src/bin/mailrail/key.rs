//! `mailrail key`.

use crate::Status;
use crate::arguments::{Common, KeyAdd, KeyCommand, KeyLs, KeyRemove};
use crate::failure::Failure;
use crate::output::{print, print_json};
use crate::terminal::printable;
use crate::{repository, secret, values};
use mailrail::Protection;
use mailrail::repository::{KeySlot, SlotId, SlotKind};
use serde_json::{Value, json};

pub(crate) async fn run(common: &Common, command: KeyCommand) -> Result<Status, Failure> {
    match command {
        KeyCommand::Add(arguments) => add(common, arguments).await,
        KeyCommand::Remove(arguments) => remove(common, arguments).await,
        KeyCommand::Ls(arguments) => list(common, arguments).await,
        KeyCommand::Rotate(arguments) => rotate(common, arguments).await,
    }
}

async fn add(common: &Common, arguments: KeyAdd) -> Result<Status, Failure> {
    let new = new_key(&arguments)?;
    let keys = repository::open(common, &arguments.repository).await?.keys();
    let id = keys.add(new, &arguments.label).await?;
    told(common, "added", id)
}

async fn remove(common: &Common, arguments: KeyRemove) -> Result<Status, Failure> {
    let KeyRemove { repository: path, id, even_in_use } = arguments;
    let keys = repository::open(common, &path).await?.keys();
    if even_in_use {
        keys.remove_even_in_use(id).await?;
    } else {
        let is_in_use = keys.list().await?.iter().any(|slot| slot.id == id && slot.in_use);
        keys.remove(id).await.map_err(|error| match is_in_use {
            true => Failure::from(error).advise("give --even-in-use if it is to be removed nevertheless"),
            false => error.into(),
        })?;
    }
    told(common, "removed", id)
}

async fn rotate(common: &Common, arguments: KeyAdd) -> Result<Status, Failure> {
    let new = new_key(&arguments)?;
    let keys = repository::open(common, &arguments.repository).await?.keys();
    let id = keys.rotate(new, &arguments.label).await?;
    told(common, "rotated", id)
}

async fn list(common: &Common, arguments: KeyLs) -> Result<Status, Failure> {
    let slots = repository::open(common, &arguments.repository).await?.keys().list().await?;
    if common.json {
        print_json(json!({ "schema": 1, "keys": slots.iter().map(as_json).collect::<Vec<_>>() }))?;
    } else {
        let mut text = format!("   {:<16}  {:<10}  {:<20}  label\n", "id", "kind", "made");
        slots.iter().for_each(|slot| text += &line(slot));
        print(&text)?;
    }
    Ok(Status::when(slots.iter().all(|slot| slot.kind != SlotKind::Unreadable)))
}

/// The key to be, read before anything is opened.
fn new_key(arguments: &KeyAdd) -> Result<Protection, Failure> {
    let new = secret::of_files(arguments.new_key_file.as_deref(), arguments.new_password_file.as_deref())?;
    new.ok_or_else(|| Failure::usage("give --new-key-file FILE or --new-password-file FILE"))
}

fn told(common: &Common, what: &str, id: SlotId) -> Result<Status, Failure> {
    if common.json {
        print_json(json!({ "schema": 1, "done": what, "id": id.to_string() }))?;
    } else if !common.quiet {
        print(&match what {
            "rotated" => format!("The new key is {id}; the old one is removed.\n"),
            _ => format!("Key {id} {what}.\n"),
        })?;
    }
    Ok(Status::Complete)
}

/// The one in use has a star.
fn line(slot: &KeySlot) -> String {
    let star = if slot.in_use { '*' } else { ' ' };
    let line = format!(" {star} {}  {:<10}  {:<20}  {}", slot.id, kind(slot), made(slot), printable(&slot.label));
    format!("{}\n", line.trim_end())
}

fn as_json(slot: &KeySlot) -> Value {
    json!({
        "id": slot.id.to_string(),
        "kind": kind(slot),
        "label": slot.label,
        "created": made(slot),
        "in_use": slot.in_use,
    })
}

fn kind(slot: &KeySlot) -> &'static str {
    match slot.kind {
        SlotKind::Key => "key file",
        SlotKind::Passphrase => "passphrase",
        _ => "unreadable",
    }
}

fn made(slot: &KeySlot) -> String {
    match slot.kind {
        SlotKind::Unreadable => "-".into(),
        _ => values::shown((slot.created / 1_000_000_000) as i64),
    }
}
