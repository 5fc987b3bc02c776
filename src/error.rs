//! One error type for the whole crate: kind, retry advice, message, cause.
//!
//! A kind exists only where a caller would act differently; the message is for people and not part of the API.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::time::Duration;

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, and what can be done about it.
///
/// `Display` prints this layer alone; [`source`](StdError::source) carries what lies beneath.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    retry: Retry,
    message: Cow<'static, str>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// What a caller can act upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The call is wrong: an illegal setting, an ambiguous source, a name that cannot be. Change the call.
    Invalid,
    /// The thing asked for does not exist.
    NotFound,
    /// It was there once, and was forgotten on purpose.
    Forgotten,
    /// It exists already, and must not.
    Exists,
    /// The operating system or the store refuses access. Change rights or credentials.
    Denied,
    /// The key does not open this repository, or none was given.
    Key,
    /// Stored octets are not what was once written. Run a check; restore what is not touched.
    Damaged,
    /// A newer format than this version of the crate reads, or a store that lacks what is needed.
    Unsupported,
    /// No space or quota is left. Nothing was lost; make room and run again.
    Full,
    /// The store or the source failed for now. Worth another try.
    Unavailable,
    /// The store asks for fewer requests. Worth another try after the time in [`Retry`].
    Throttled,
    /// A limit of [`settings`](crate::settings) was exceeded.
    Limit,
    /// The transfer was cancelled by its caller.
    Cancelled,
    /// A defect of mailrail itself (an invariant broken, a worker panicked). Please report it.
    Internal,
}

/// Whether the same call is worth repeating.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Retry {
    /// The same call fails the same way.
    Never,
    /// Repeat with growing pauses.
    Backoff,
    /// Repeat, but not before this much time has gone by.
    After(Duration),
}

impl Error {
    /// An error of `kind`; whether it is worth a retry follows from the kind.
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        let retry = match kind {
            ErrorKind::Unavailable | ErrorKind::Throttled => Retry::Backoff,
            _ => Retry::Never,
        };
        Self(Box::new(Inner { kind, retry, message: message.into(), source: None }))
    }

    /// The same error with `source` as its cause.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// The same error with other retry advice.
    #[must_use]
    pub fn retry_as(mut self, retry: Retry) -> Self {
        self.0.retry = retry;
        self
    }

    /// An operating system's error; `doing` says what was being done, and to what. Only what passes by itself (a timeout, a busy or stale
    /// file) is worth a retry: a disk that cannot read an octet cannot read it the tenth time.
    pub fn io(doing: impl Into<Cow<'static, str>>, source: io::Error) -> Self {
        let kind = match source.kind() {
            io::ErrorKind::NotFound => ErrorKind::NotFound,
            io::ErrorKind::AlreadyExists => ErrorKind::Exists,
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => ErrorKind::Denied,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::Full,
            _ => ErrorKind::Unavailable,
        };
        let error = Self::new(kind, doing);
        let error = if passes(source.kind()) { error } else { error.retry_as(Retry::Never) };
        error.because(source)
    }

    /// The caller's mistake.
    pub(crate) fn invalid(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    /// Stored octets that do not verify.
    pub(crate) fn damaged(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Damaged, message)
    }

    /// A broken invariant of ours.
    pub(crate) fn internal(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// What a caller can act upon.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether something is lost or not as it was written, and not just out of reach.
    pub(crate) fn is_loss(&self) -> bool {
        matches!(self.kind(), ErrorKind::Damaged | ErrorKind::NotFound)
    }

    /// Whether the same call is worth repeating.
    #[must_use]
    pub fn retry(&self) -> Retry {
        self.0.retry
    }
}

/// Whether an operating system's error may be gone a moment later.
fn passes(kind: io::ErrorKind) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        kind,
        Kind::Interrupted
            | Kind::WouldBlock
            | Kind::TimedOut
            | Kind::ResourceBusy
            | Kind::StaleNetworkFileHandle
            | Kind::NetworkDown
            | Kind::NetworkUnreachable
            | Kind::HostUnreachable
            | Kind::ConnectionReset
            | Kind::ConnectionAborted
            | Kind::BrokenPipe
            | Kind::NotConnected
    )
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { kind, retry, message, source } = &*self.0;
        let mut debug = f.debug_struct("Error");
        debug.field("kind", kind).field("message", message);
        if *retry != Retry::Never {
            debug.field("retry", retry);
        }
        if let Some(source) = source {
            debug.field("source", source);
        }
        debug.finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_prints_one_layer_and_source_the_rest() {
        let error = Error::io("reading 'a'", io::Error::from(io::ErrorKind::StorageFull));
        assert_eq!(error.to_string(), "reading 'a'");
        assert_eq!(error.kind(), ErrorKind::Full);
        assert!(error.source().is_some());
        assert!(!format!("{error:?}").is_empty());
    }

    #[test]
    fn throttling_is_worth_a_retry_and_a_wrong_key_is_not() {
        assert_eq!(Error::new(ErrorKind::Throttled, "slow down").retry(), Retry::Backoff);
        assert_eq!(Error::new(ErrorKind::Key, "wrong key").retry(), Retry::Never);
        let retry = |kind| Error::io("reading", io::Error::from(kind)).retry();
        assert_eq!(retry(io::ErrorKind::TimedOut), Retry::Backoff);
        assert_eq!(retry(io::ErrorKind::Other), Retry::Never);
    }
}
