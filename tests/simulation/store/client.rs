//! A process's way to its objects: a store each of whose operations goes through the network.

use super::Network;
use crate::objects::{Answer, Call, Reply};
use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::{self, BoxStream, StreamExt};
use mailrail::store::{Created, FileStore, Listed, Payload, Store};
use mailrail::{Error, ErrorKind, Result};
use std::fmt;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Does what is asked for in a file store, whose operations block and so are done at once.
pub(super) fn in_files(store: &FileStore, call: &Call) -> Reply {
    fn now<T>(future: BoxFuture<'_, Result<T>>) -> Result<T> {
        let pending = || Error::new(ErrorKind::Internal, "a file store's operation waits");
        future.now_or_never().ok_or_else(pending)?
    }
    match call {
        Call::Put(key, octets) => now(store.put(key, octets.clone().into())).map(|()| Answer::Done),
        Call::Create(key, octets) => now(store.create(key, octets.clone().into())).map(Answer::Created),
        Call::Read(key, range) => now(store.read(key, range.clone())).map(Answer::Octets),
        Call::Length(key) => now(store.length(key)).map(Answer::Length),
        Call::List(prefix) => {
            let listed = store.list(prefix).collect::<Vec<_>>().map(|listed| listed.into_iter().collect());
            now(listed.boxed()).map(Answer::Listed)
        }
        Call::Delete(key) => now(store.delete(key)).map(|()| Answer::Done),
        Call::Idle | Call::Sleep(_) => Ok(Answer::Done),
    }
}

/// A process's way to its objects.
pub(super) struct Client {
    pub(super) network: Network,
    pub(super) process: usize,
}

impl Client {
    fn ask(&self, call: Call) -> Request {
        Request::new(&self.network, self.process, call)
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", self.process)
    }
}

impl Store for Client {
    fn put<'a>(&'a self, key: &'a str, payload: Payload) -> BoxFuture<'a, Result<()>> {
        async move { self.ask(Call::Put(key.to_owned(), join(&payload))).await.map(drop) }.boxed()
    }

    fn create<'a>(&'a self, key: &'a str, payload: Payload) -> BoxFuture<'a, Result<Created>> {
        async move {
            match self.ask(Call::Create(key.to_owned(), join(&payload))).await? {
                Answer::Created(created) => Ok(created),
                other => Err(mistaken(&other)),
            }
        }
        .boxed()
    }

    fn read<'a>(&'a self, key: &'a str, range: Option<Range<u64>>) -> BoxFuture<'a, Result<Bytes>> {
        async move {
            match self.ask(Call::Read(key.to_owned(), range)).await? {
                Answer::Octets(octets) => Ok(octets),
                other => Err(mistaken(&other)),
            }
        }
        .boxed()
    }

    fn length<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<u64>>> {
        async move {
            match self.ask(Call::Length(key.to_owned())).await? {
                Answer::Length(length) => Ok(length),
                other => Err(mistaken(&other)),
            }
        }
        .boxed()
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<Listed>> {
        let listed = async move {
            match self.ask(Call::List(prefix.to_owned())).await {
                Ok(Answer::Listed(listed)) => listed.into_iter().map(Ok).collect(),
                Ok(other) => vec![Err(mistaken(&other))],
                Err(error) => vec![Err(error)],
            }
        };
        listed.map(stream::iter).flatten_stream().boxed()
    }

    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<()>> {
        async move { self.ask(Call::Delete(key.to_owned())).await.map(drop) }.boxed()
    }
}

fn mistaken(answer: &Answer) -> Error {
    Error::new(ErrorKind::Internal, format!("an answer to something else: {answer:?}"))
}

/// A payload as the store keeps it: one piece, no longer than it must be.
fn join(payload: &Payload) -> Bytes {
    let mut joined = Vec::with_capacity(payload.len() as usize);
    payload.pieces().iter().for_each(|piece| joined.extend_from_slice(piece));
    joined.into()
}

/// An operation under way, from the first poll on.
pub(super) struct Request {
    network: Network,
    process: usize,
    call: Option<Call>,
    id: Option<u64>,
}

impl Request {
    pub(super) fn new(network: &Network, process: usize, call: Call) -> Self {
        Self { network: network.clone(), process, call: Some(call), id: None }
    }
}

impl Future for Request {
    type Output = Reply;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Reply> {
        let network = self.network.clone();
        let mut state = network.state();
        if let Some(call) = self.call.take() {
            if state.processes[self.process].is_direct {
                return Poll::Ready(state.apply(self.process, &call));
            }
            self.id = Some(state.submit(self.process, call));
        }
        let Some(id) = self.id else { return Poll::Pending };
        let Some(operation) = state.operations.get_mut(&id) else { return Poll::Pending };
        if !operation.is_answered {
            operation.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        self.id = None;
        let reply = operation.reply.take();
        if operation.is_effective {
            state.operations.remove(&id);
        } else {
            // It will take effect all the same.
            operation.is_abandoned = true;
        }
        let missing = || Err(Error::new(ErrorKind::Internal, "an answer without a reply"));
        Poll::Ready(reply.unwrap_or_else(missing))
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.network.state().abandon(id);
        }
    }
}
