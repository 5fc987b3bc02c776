//! What that crate's errors mean to a caller of ours.

use crate::error::{Error, ErrorKind, Retry};
use std::error::Error as StdError;
use std::io;

/// The error of an operation: `doing` says which, and on what.
pub(super) fn told(doing: &str, error: object_store::Error) -> Error {
    #[cfg(any(feature = "s3", feature = "azure", feature = "gcs"))]
    if let Some(refusal) = find::<super::refusal::Refusal>(&error) {
        return refusal.told(doing);
    }
    let (kind, retry) = judged(&error);
    let told = Error::new(kind, doing.to_owned());
    let told = match retry {
        Some(retry) => told.retry_as(retry),
        None => told,
    };
    told.because(error)
}

fn judged(error: &object_store::Error) -> (ErrorKind, Option<Retry>) {
    use object_store::Error as E;
    let kind = match error {
        E::NotFound { .. } => ErrorKind::NotFound,
        E::AlreadyExists { .. } => ErrorKind::Exists,
        E::PermissionDenied { .. } | E::Unauthenticated { .. } => ErrorKind::Denied,
        E::NotSupported { .. } | E::NotImplemented { .. } => ErrorKind::Unsupported,
        E::InvalidPath { .. } | E::UnknownConfigurationKey { .. } => ErrorKind::Invalid,
        // That crate's own file system, or somebody's store.
        _ => match find::<io::Error>(error) {
            Some(error) => return judged_io(error.kind()),
            None => ErrorKind::Unavailable,
        },
    };
    (kind, None)
}

fn judged_io(kind: io::ErrorKind) -> (ErrorKind, Option<Retry>) {
    let judged = Error::io("", io::Error::from(kind));
    (judged.kind(), Some(judged.retry()))
}

/// Whether a range that begins at an object's end or behind it may be why.
pub(super) fn may_be_behind_the_end(error: &object_store::Error) -> bool {
    #[cfg(any(feature = "s3", feature = "azure", feature = "gcs"))]
    if let Some(refusal) = find::<super::refusal::Refusal>(error) {
        return refusal.is_about_the_range();
    }
    matches!(error, object_store::Error::Generic { .. })
}

/// The error of this type among the causes.
fn find<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        cause = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_told_by_what_a_caller_can_do_about_it() {
        use object_store::Error as E;
        let source = || "as the test wants".into();
        let path = || "a".to_owned();
        for (error, kind, retry) in [
            (E::NotFound { path: path(), source: source() }, ErrorKind::NotFound, Retry::Never),
            (E::PermissionDenied { path: path(), source: source() }, ErrorKind::Denied, Retry::Never),
            (E::Unauthenticated { path: path(), source: source() }, ErrorKind::Denied, Retry::Never),
            (E::NotSupported { source: source() }, ErrorKind::Unsupported, Retry::Never),
            (E::Generic { store: "S3", source: source() }, ErrorKind::Unavailable, Retry::Backoff),
            (of_io(io::ErrorKind::StorageFull), ErrorKind::Full, Retry::Never),
            (of_io(io::ErrorKind::TimedOut), ErrorKind::Unavailable, Retry::Backoff),
            (of_io(io::ErrorKind::Other), ErrorKind::Unavailable, Retry::Never),
        ] {
            let error = told("reading 'a'", error);
            assert_eq!((error.kind(), error.retry()), (kind, retry), "{error:?}");
            assert!(error.source().is_some());
        }
    }

    fn of_io(kind: io::ErrorKind) -> object_store::Error {
        object_store::Error::Generic { store: "LocalFileSystem", source: io::Error::from(kind).into() }
    }
}
