//! What a server said, or why there is no answer, kept as a cause in that crate's errors so that it comes back unchanged.

use crate::error::{Error, ErrorKind, Retry};
use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

/// An answer that is no success, or none at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    kind: ErrorKind,
    retry: Option<Retry>,
    said: String,
    is_about_the_range: bool,
}

impl Refusal {
    /// There was no answer.
    pub(super) fn unanswered(kind: ErrorKind, why: impl Into<String>) -> Self {
        Self { kind, retry: None, said: why.into(), is_about_the_range: false }
    }

    /// Of an answer with this status and code (as `SlowDown`; empty if it has none) that asks to come back after a time. `None` for
    /// answers that that crate understands by itself.
    pub(super) fn of(status: u16, code: &str, after: Option<Duration>) -> Option<Self> {
        let kind = kind(status, code)?;
        let retry = match (kind, after) {
            (ErrorKind::Throttled | ErrorKind::Unavailable, Some(after)) => Some(Retry::After(after)),
            _ => None,
        };
        let said = match advice(status, code) {
            Some(advice) => format!("the server answered {status} {code}: {advice}"),
            None => format!("the server answered {status} {code}").trim_end().to_owned(),
        };
        Some(Self { kind, retry, said, is_about_the_range: status == 416 })
    }

    /// Whether the same request may succeed a moment later, and the server did not say when.
    pub(super) fn may_pass_soon(&self) -> bool {
        self.kind == ErrorKind::Unavailable && self.retry.is_none()
    }

    pub(super) fn is_about_the_range(&self) -> bool {
        self.is_about_the_range
    }

    /// The error of an operation.
    pub(super) fn told(&self, doing: &str) -> Error {
        let error = Error::new(self.kind, doing.to_owned()).because(self.clone());
        match self.retry {
            Some(retry) => error.retry_as(retry),
            None => error,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.said)
    }
}

impl StdError for Refusal {}

/// What an answer means. A code says more than a status, where there is one.
fn kind(status: u16, code: &str) -> Option<ErrorKind> {
    Some(match (status, code) {
        (200..=299 | 304 | 412, _) => return None,
        // It is there already: that crate knows what to make of it.
        (409, "BlobAlreadyExists") => return None,
        (_, "SlowDown" | "ServerBusy" | "TooManyRequests" | "RequestLimitExceeded" | "rateLimitExceeded") => {
            ErrorKind::Throttled
        }
        (429 | 503, _) => ErrorKind::Throttled,
        (_, "QuotaExceeded" | "InsufficientStorage" | "XMinioStorageFull") | (507, _) => ErrorKind::Full,
        (_, "RequestTimeout" | "OperationTimedOut" | "InternalError") => ErrorKind::Unavailable,
        (_, "ExpiredToken" | "InvalidToken" | "InvalidAccessKeyId" | "AuthenticationFailed") => ErrorKind::Denied,
        // A bucket that is not there is no object that is not there.
        (404, "NoSuchBucket" | "ContainerNotFound" | "AccountNotFound") => ErrorKind::Invalid,
        (404, _) => return None,
        (401 | 403, _) => ErrorKind::Denied,
        // Writers met, or a container is being deleted: nothing is known of the object.
        (408 | 409, _) => ErrorKind::Unavailable,
        (501, _) => ErrorKind::Unsupported,
        (500..=599, _) => ErrorKind::Unavailable,
        _ => ErrorKind::Invalid,
    })
}

fn advice(status: u16, code: &str) -> Option<&'static str> {
    Some(match (status, code) {
        (_, "ExpiredToken") => "the credentials have expired",
        (_, "RequestTimeTooSkewed") => "the clock of this machine is wrong",
        (_, "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "AuthenticationFailed") => {
            "are the credentials those of this store?"
        }
        (_, "NoSuchBucket" | "ContainerNotFound") => "create the bucket or container first",
        (_, "AuthorizationHeaderMalformed") | (300..=399, _) => "is it the right region and endpoint?",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_told_by_what_a_caller_can_do_about_it() {
        let after = Some(Duration::from_secs(7));
        for (status, code, kind, retry) in [
            (503, "SlowDown", ErrorKind::Throttled, Retry::After(Duration::from_secs(7))),
            (500, "ServerBusy", ErrorKind::Throttled, Retry::After(Duration::from_secs(7))),
            (429, "", ErrorKind::Throttled, Retry::After(Duration::from_secs(7))),
            (500, "", ErrorKind::Unavailable, Retry::After(Duration::from_secs(7))),
            (409, "ConditionalRequestConflict", ErrorKind::Unavailable, Retry::After(Duration::from_secs(7))),
            (400, "RequestTimeout", ErrorKind::Unavailable, Retry::After(Duration::from_secs(7))),
            (507, "", ErrorKind::Full, Retry::Never),
            (403, "SignatureDoesNotMatch", ErrorKind::Denied, Retry::Never),
            (404, "NoSuchBucket", ErrorKind::Invalid, Retry::Never),
            (301, "", ErrorKind::Invalid, Retry::Never),
            (400, "", ErrorKind::Invalid, Retry::Never),
            (501, "NotImplemented", ErrorKind::Unsupported, Retry::Never),
        ] {
            let error = Refusal::of(status, code, after).unwrap().told("reading 'a'");
            assert_eq!((error.kind(), error.retry()), (kind, retry), "{status} {code}");
        }
        for (status, code) in
            [(200, ""), (304, ""), (404, "NoSuchKey"), (404, ""), (409, "BlobAlreadyExists"), (412, "")]
        {
            assert_eq!(Refusal::of(status, code, None), None, "{status} {code}");
        }
        assert!(Refusal::of(416, "InvalidRange", None).unwrap().is_about_the_range());
        assert_eq!(Refusal::of(503, "", None).unwrap().told("").retry(), Retry::Backoff);
    }
}
