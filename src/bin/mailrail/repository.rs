//! Opening repositories, and creating them where there is room for one.

use crate::arguments::Common;
use crate::failure::Failure;
use crate::secret;
use futures::TryStreamExt;
use mailrail::runtime::SystemTimer;
use mailrail::store::{Retries, RetryingStore, Store, StoreUrl};
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

/// What may be in a directory that becomes a repository: what a creation that was cut off leaves, and what file systems put at their top, and
/// what a probe of the store leaves that was cut off.
const HARMLESS: [&str; 4] = ["keys", ".tmp", "lost+found", "probe"];

/// Opens the repository at `url`.
pub(crate) async fn open(common: &Common, url: &StoreUrl) -> Result<Repository, Failure> {
    let key = common.key()?;
    let store = match url.directory().map(look).transpose()? {
        Some(Found::Room | Found::Others) => return Err(absent(url)),
        Some(Found::Repository) | None => url.open(&common.store_options())?,
    };
    opened(common, store, url, key).await
}

/// Opens the repository at `url`; creates it if there is nothing yet.
pub(crate) async fn open_or_create(
    common: &Common,
    url: &StoreUrl,
    no_encryption: bool,
) -> Result<Repository, Failure> {
    let key = if no_encryption { None } else { common.key()? };
    match url.directory() {
        Some(path) => match look(path)? {
            Found::Repository => opened(common, url.open(&common.store_options())?, url, key).await,
            Found::Others => Err(occupied(url)),
            Found::Room => created(common, url, key, no_encryption).await,
        },
        None => {
            let store = url.open(&common.store_options())?;
            match look_into(Arc::clone(&store)).await? {
                Found::Repository => opened(common, store, url, key).await,
                Found::Others => Err(occupied(url)),
                Found::Room => created(common, url, key, no_encryption).await,
            }
        }
    }
}

async fn created(
    common: &Common,
    url: &StoreUrl,
    key: Option<Protection>,
    no_encryption: bool,
) -> Result<Repository, Failure> {
    // Before anything is made: a directory without a repository in it would be a riddle.
    let protection = match key {
        Some(key) => key,
        None if no_encryption => Protection::None,
        None => return Err(Failure::new("a new repository needs a key").advise(secret::ADVICE)),
    };
    let store = url.open_or_create(&common.store_options())?;
    Ok(Repository::open_or_create_with(store, protection, common.seams(url)?).await?)
}

async fn opened(
    common: &Common,
    store: Arc<dyn Store>,
    url: &StoreUrl,
    key: Option<Protection>,
) -> Result<Repository, Failure> {
    let has_key = key.is_some();
    let opened = Repository::open_with(store, key.unwrap_or(Protection::None), common.seams(url)?).await;
    opened.map_err(|error| match error.kind() {
        ErrorKind::Key if has_key => Failure::from(error).advise("give a key that opens it, if it is encrypted"),
        ErrorKind::Key => Failure::from(error).advise("give --key-file FILE or --password-file FILE"),
        ErrorKind::NotFound => absent(url),
        _ => Failure::from(error),
    })
}

fn absent(url: &StoreUrl) -> Failure {
    Failure::new(format!("there is no repository in '{url}'"))
}

fn occupied(url: &StoreUrl) -> Failure {
    Failure::new(format!("'{url}' has other things in it and is no repository; give an empty or a new place"))
}

/// What a bucket has under the prefix.
async fn look_into(store: Arc<dyn Store>) -> Result<Found, Failure> {
    // The pauses need not be random: this is asked once.
    let store = RetryingStore::new(store, Retries::default(), Arc::new(SystemTimer), 0);
    for config in ["config", "config.copy"] {
        if store.length(config).await?.is_some() {
            return Ok(Found::Repository);
        }
    }
    let mut listing = store.list("");
    while let Some(object) = listing.try_next().await? {
        let is_harmless = object.key.split('/').next().is_some_and(|name| HARMLESS.contains(&name));
        if !is_harmless {
            return Ok(Found::Others);
        }
    }
    Ok(Found::Room)
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
