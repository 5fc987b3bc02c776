//! Listing a directory tree without holding all of it.

use super::FileStore;
use super::disk::Found;
use crate::error::Result;
use crate::store::Listed;
use crate::store::key::check_prefix;
use futures::stream::{self, BoxStream, StreamExt};

/// The objects below `prefix`, depth first, in order of names. Ends after an error.
pub(super) fn list<'a>(store: &'a FileStore, prefix: &'a str) -> BoxStream<'a, Result<Listed>> {
    stream::try_unfold(Walk::From(prefix), move |position| next(store, position)).boxed()
}

/// How far a walk is.
enum Walk<'a> {
    /// It has not begun.
    From(&'a str),
    /// These are left, the next one last.
    Left(Vec<Found>),
}

async fn next<'a>(store: &FileStore, position: Walk<'a>) -> Result<Option<(Listed, Walk<'a>)>> {
    let mut left = match position {
        Walk::From(prefix) => {
            check_prefix(prefix)?;
            vec![Found::Directory(prefix.to_owned())]
        }
        Walk::Left(left) => left,
    };
    while let Some(found) = left.pop() {
        match found {
            Found::Object(listed) => return Ok(Some((listed, Walk::Left(left)))),
            Found::Directory(prefix) => left.extend(store.run(move |disk| disk.list(&prefix)).await?),
        }
    }
    Ok(None)
}
