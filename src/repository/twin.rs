//! The config's copy: all that is sealed hangs on 73 octets at most, so they are kept twice.

use super::{CONFIG, CONFIG_MAX, Config, Repository};
use crate::error::{Error, ErrorKind, Result};
use crate::store::{Payload, Store, read_bounded};
use bytes::Bytes;

/// Where the copy is.
pub(crate) const CONFIG_COPY: &str = "config.copy";

/// The config, or if that is lost its copy.
pub(super) async fn read_config(store: &dyn Store) -> Result<Config> {
    let error = match read(store, CONFIG).await? {
        Ok((_, config)) => return Ok(config),
        Err(error) => error,
    };
    match read(store, CONFIG_COPY).await? {
        Ok((_, config)) => Ok(config),
        // Nobody may take this for a place where a repository can be created.
        Err(copy) if error.kind() == ErrorKind::NotFound && copy.kind() != ErrorKind::NotFound => {
            Err(Error::damaged("the config is missing, and its copy is damaged").because(copy))
        }
        Err(_) if error.kind() == ErrorKind::NotFound => {
            Err(Error::new(ErrorKind::NotFound, "there is no repository here").because(error))
        }
        Err(_) => Err(error),
    }
}

/// Copies the config of whoever created the repository, if that is what was read.
pub(super) async fn copy_config(store: &dyn Store) -> Result<()> {
    let (octets, _) = read(store, CONFIG).await??;
    store.put(CONFIG_COPY, Payload::from(octets)).await
}

/// What is wrong with config and copy: key, and the damage or the lack.
pub(crate) async fn check_config(repository: &Repository) -> Result<Vec<(&'static str, Error)>> {
    let store = &**repository.store();
    let (config, copy) = (read(store, CONFIG).await?, read(store, CONFIG_COPY).await?);
    let differs = match (&config, &copy) {
        (Ok((config, _)), Ok((copy, _))) => config != copy,
        _ => false,
    };
    let mut wrong = Vec::new();
    wrong.extend(config.err().map(|error| (CONFIG, error)));
    wrong.extend(copy.err().map(|error| (CONFIG_COPY, error)));
    if differs {
        wrong.push((CONFIG_COPY, Error::damaged("it is not the config's copy")));
    }
    Ok(wrong)
}

/// Writes config or copy anew from the one that reads, and gives the keys written.
pub(crate) async fn mend_config(repository: &Repository) -> Result<Vec<&'static str>> {
    let store = &**repository.store();
    let mut mended = Vec::new();
    for (key, _) in check_config(repository).await? {
        let from = if key == CONFIG { CONFIG_COPY } else { CONFIG };
        if let Ok((octets, _)) = read(store, from).await? {
            store.put(key, Payload::from(octets)).await?;
            mended.push(key);
        }
    }
    Ok(mended)
}

/// A config, or why it is none. Fails only if the store does.
async fn read(store: &dyn Store, key: &str) -> Result<Result<(Bytes, Config)>> {
    match read_bounded(store, key, CONFIG_MAX).await {
        Ok(octets) => Ok(Config::decode(&octets).map(|config| (octets, config))),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Damaged) => Ok(Err(error)),
        Err(error) => Err(error),
    }
}
