//! Trying again one part of an upload.

use crate::runtime::{SystemTimer, Timer};
use futures::future::BoxFuture;
use object_store::client::HttpErrorKind;
use object_store::retry::{RetryContext, RetryFailure, RetryPolicy};
use std::time::Duration;

/// How often one part is tried again before its upload is given up, and how long the first pause is.
const PART_RETRIES: usize = 3;
const PART_PAUSE: Duration = Duration::from_millis(200);

/// A part that fails for now is tried again by itself, before its whole object is.
#[derive(Debug)]
pub(super) struct PartRetries;

impl RetryPolicy for PartRetries {
    fn retry<'a, 'b>(&'a self, context: RetryContext) -> BoxFuture<'b, bool>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move {
            let is_passing = match context.failure {
                RetryFailure::Status(status) => status.is_server_error(),
                // `Connector` tells what is not worth a retry, or has to wait as a server asked, as something else.
                RetryFailure::Transport(kind) => matches!(
                    kind,
                    HttpErrorKind::Connect
                        | HttpErrorKind::Request
                        | HttpErrorKind::Timeout
                        | HttpErrorKind::Interrupted
                ),
                _ => false,
            };
            if !is_passing || context.attempt > PART_RETRIES {
                return false;
            }
            SystemTimer.sleep(PART_PAUSE * context.attempt as u32).await;
            true
        })
    }
}
