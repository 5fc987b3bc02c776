//! Opening repositories, and creating them where there is room for one.

use crate::arguments::Common;
use crate::failure::Failure;
use crate::secret;
use mailrail::store::{FileStore, Prices};
use mailrail::{ErrorKind, Protection, Repository};
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// What is at a place where a repository is said to be.
enum Found {
    Repository,
    /// Nothing, or nothing that a new repository would harm.
    Room,
    /// Somebody's files.
    Others,
}

/// What may be in a directory that becomes a repository: what a creation that was cut off leaves, and what file systems put at their top.
const HARMLESS: [&str; 3] = ["keys", ".tmp", "lost+found"];

/// Opens the repository at `path`.
pub(crate) async fn open(common: &Common, path: &Path) -> Result<Repository, Failure> {
    let key = common.key()?;
    match look(path)? {
        Found::Repository => opened(common, path, key).await,
        _ => Err(Failure::new(format!("there is no repository in '{}'", path.display()))),
    }
}

/// Opens the repository at `path`; creates it if there is nothing yet.
pub(crate) async fn open_or_create(common: &Common, path: &Path, no_encryption: bool) -> Result<Repository, Failure> {
    let key = if no_encryption { None } else { common.key()? };
    match look(path)? {
        Found::Repository => opened(common, path, key).await,
        Found::Others => Err(Failure::new(format!(
            "'{}' has other things in it and is no repository; give an empty or a new directory",
            path.display()
        ))),
        Found::Room => {
            let protection = match key {
                Some(key) => key,
                None if no_encryption => Protection::None,
                None => return Err(Failure::new("a new repository needs a key").advise(secret::ADVICE)),
            };
            let store = FileStore::open_or_create(path)?;
            let seams = common.seams(false, Prices::FREE)?;
            Ok(Repository::open_or_create_with(Arc::new(store), protection, seams).await?)
        }
    }
}

async fn opened(common: &Common, path: &Path, key: Option<Protection>) -> Result<Repository, Failure> {
    let has_key = key.is_some();
    let protection = key.unwrap_or(Protection::None);
    let seams = common.seams(false, Prices::FREE)?;
    let opened = Repository::open_with(Arc::new(FileStore::open(path)?), protection, seams).await;
    opened.map_err(|error| {
        let is_about_keys = error.kind() == ErrorKind::Key;
        let failure = Failure::from(error);
        match is_about_keys {
            true if has_key => failure.advise("give a key that opens it, if it is encrypted"),
            true => failure.advise("give --key-file FILE or --password-file FILE"),
            false => failure,
        }
    })
}

fn look(path: &Path) -> Result<Found, Failure> {
    let failed = |source: io::Error| Failure::of(format!("looking into '{}'", path.display()), &source);
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Room),
        Err(error) => return Err(failed(error)),
    };
    let mut found = Found::Room;
    for entry in entries {
        let name = entry.map_err(failed)?.file_name();
        if name == "config" || name == "config.copy" {
            return Ok(Found::Repository);
        }
        if !HARMLESS.iter().any(|harmless| name == *harmless) {
            found = Found::Others;
        }
    }
    Ok(found)
}
