//! The push side: an embedder appends messages to a mailbox, one by one, and is told when each is durable.

use super::Settled;
use super::known::KnownMailbox;
use crate::error::{Error, ErrorKind, Result};
use crate::message::{Envelope, MailboxName};
use crate::source::{Body, Kind, Message, SourceId};
use bytes::Bytes;
use std::fmt;
use tokio::sync::{mpsc, oneshot};

/// How many appended messages may wait to be taken in. Their bodies are not in the budget until then.
const WAITING_MAX: usize = 64;

/// A mailbox that messages are appended to. Clones append to the same.
///
/// It comes with a [`Transfer`](super::Transfer), which does the work and must be driven (spawned, or polled beside the appends); it ends, with the
/// account, when all clones are dropped. Messages that are appended while a commit is under way share the next one.
#[derive(Clone)]
pub struct Appender {
    inbox: mpsc::Sender<Request>,
}

/// What an appender asks of its transfer.
pub(super) enum Request {
    Append(Box<Appended>),
    Has { folder: Bytes, name: Bytes, answer: oneshot::Sender<bool> },
}

/// A message that was appended, and who waits for it.
pub(super) struct Appended {
    pub(super) message: Message,
    pub(super) ticket: Ticket,
}

/// Who is told what became of a message.
pub(super) type Ticket = oneshot::Sender<Result<Settled>>;

/// The receiving end, which takes the place of a source.
pub(super) struct Inbox {
    pub(super) mailbox: MailboxName,
    pub(super) source: (SourceId, Kind),
    requests: mpsc::Receiver<Request>,
}

impl Appender {
    pub(super) fn new(mailbox: MailboxName, source: SourceId, kind: Kind) -> (Self, Inbox) {
        let (inbox, requests) = mpsc::channel(WAITING_MAX);
        (Self { inbox }, Inbox { mailbox, source: (source, kind), requests })
    }

    /// Appends a message, and resolves when it is durable and committed, or quarantined.
    ///
    /// A folder that no source has named is restored as the path that its raw octets are, with a `/` between names.
    ///
    /// A message that the journal has already, by identity and evidence from an earlier opening, is not read again. Appending the same identity twice
    /// in one opening stores it twice.
    ///
    /// # Cancel safety
    /// Dropping the future before it was first polled appends nothing; later the message is stored all the same, and nobody is told.
    ///
    /// # Errors
    /// [`Cancelled`](ErrorKind::Cancelled) if the transfer ended first: whether the message was stored is unknown; `has` will tell a later opening.
    /// [`Limit`](ErrorKind::Limit) if the envelope weighs more than [`Envelope::OCTETS_MAX`]. [`Unavailable`](ErrorKind::Unavailable) if a sweep took content that the message shares with others: it was not stored; append it again.
    pub async fn append(&self, envelope: Envelope, body: impl Into<Body>) -> Result<Settled> {
        if envelope.weight() > Envelope::OCTETS_MAX {
            return Err(Error::new(
                ErrorKind::Limit,
                "what is known of a message besides its octets is longer than the limit",
            ));
        }
        let (ticket, settled) = oneshot::channel();
        let message = Message { envelope, body: body.into() };
        self.ask(Request::Append(Box::new(Appended { message, ticket }))).await?;
        settled.await.map_err(|_| ended())?
    }

    /// Whether the journal had a message of this name in this folder, in full, when the mailbox was opened.
    ///
    /// # Cancel safety
    /// Cancel safe.
    ///
    /// # Errors
    /// [`Cancelled`](ErrorKind::Cancelled) if the transfer ended.
    pub async fn has(&self, folder: impl Into<Bytes>, name: impl Into<Bytes>) -> Result<bool> {
        let (answer, answered) = oneshot::channel();
        self.ask(Request::Has { folder: folder.into(), name: name.into(), answer }).await?;
        answered.await.map_err(|_| ended())
    }

    async fn ask(&self, request: Request) -> Result<()> {
        self.inbox.send(request).await.map_err(|_| ended())
    }
}

impl fmt::Debug for Appender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Appender(..)")
    }
}

impl Inbox {
    /// The next appended message, or `None` when there will be none. Questions are answered on the way. `wait`: until there is one.
    pub(super) async fn next(&mut self, known: &mut KnownMailbox, wait: bool) -> Next {
        loop {
            let request = if wait {
                self.requests.recv().await
            } else {
                match self.requests.try_recv() {
                    Ok(request) => Some(request),
                    Err(mpsc::error::TryRecvError::Empty) => return Next::Nothing,
                    Err(mpsc::error::TryRecvError::Disconnected) => None,
                }
            };
            match request {
                None => return Next::End,
                Some(Request::Append(appended)) => return Next::Appended(appended),
                Some(Request::Has { folder, name, answer }) => {
                    // Whoever asked may have gone.
                    let _ = answer.send(known.has(&folder, &name));
                }
            }
        }
    }
}

/// What came next.
pub(super) enum Next {
    Appended(Box<Appended>),
    /// Nothing is waiting.
    Nothing,
    End,
}

impl From<Bytes> for Body {
    fn from(octets: Bytes) -> Self {
        Self::Octets(octets)
    }
}

impl From<Vec<u8>> for Body {
    fn from(octets: Vec<u8>) -> Self {
        Self::Octets(octets.into())
    }
}

fn ended() -> Error {
    Error::new(ErrorKind::Cancelled, "the transfer that the mailbox belongs to has ended")
}
