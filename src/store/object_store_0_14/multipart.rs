//! Uploads in parts.

use super::body;
use crate::error::{Error, Result};
use crate::store::Payload;
use futures::stream::{self, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStore, PutMultipartOptions};
use tokio::runtime::Handle;

/// The most parts that an upload may have at any store.
const PARTS_MAX: u64 = 10_000;

/// How larger objects are uploaded: in parts, several at once, so that one object is not as slow as one connection, and a connection that breaks costs a part.
///
/// It takes no memory: parts are the payload's own octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Multipart {
    above: u64,
    part: u64,
    at_once: usize,
}

impl Default for Multipart {
    /// Objects of more than 16 MiB in parts of 16 MiB, four at once.
    fn default() -> Self {
        Self { above: 16 << 20, part: 16 << 20, at_once: 4 }
    }
}

impl Multipart {
    /// The least octets of a part: what object stores take, but for the last part.
    pub const PART_MIN: u64 = 5 << 20;

    /// Objects of more than `above` octets go in parts of `part` octets each (or of more, so that there are no more than 10,000), `at_once` of one object at a time.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) if `part` is less than [`PART_MIN`](Self::PART_MIN) or more than 1 GiB, or nothing goes at a time.
    pub fn new(above: u64, part: u64, at_once: usize) -> Result<Self> {
        if !(Self::PART_MIN..=1 << 30).contains(&part) {
            return Err(Error::invalid(format!("a part has 5 MiB to 1 GiB, and not {part} octets")));
        }
        if at_once == 0 {
            return Err(Error::invalid("at least one part is uploaded at a time"));
        }
        Ok(Self { above, part, at_once })
    }

    /// Every object in one request, which object stores take up to about 5 GiB.
    #[must_use]
    pub fn never() -> Self {
        Self { above: u64::MAX, ..Self::default() }
    }

    /// What a [`Governor`](crate::store::Governor) should know of it.
    #[must_use]
    pub fn governed(&self) -> crate::store::Multipart {
        crate::store::Multipart { above_bytes: self.above, part_bytes: self.part, is_governed_below: false }
    }

    pub(super) fn is_for(&self, payload: &Payload) -> bool {
        payload.len() > self.above
    }

    /// Uploads in parts. If that fails, or the future is dropped, the parts that are there are given up.
    pub(super) async fn put(
        self,
        store: &dyn ObjectStore,
        path: &Path,
        payload: &Payload,
    ) -> Result<(), object_store::Error> {
        let mut upload = GivenUpOnDrop(Some(store.put_multipart_opts(path, options()).await?));
        let written = upload.write(body::parts(payload, self.part_length(payload)), self.at_once).await;
        match written {
            Ok(()) => {
                upload.0 = None;
                Ok(())
            }
            Err(error) => {
                upload.give_up().await;
                Err(error)
            }
        }
    }

    fn part_length(&self, payload: &Payload) -> u64 {
        self.part.max(payload.len().div_ceil(PARTS_MAX))
    }
}

fn options() -> PutMultipartOptions {
    let options = PutMultipartOptions::default();
    #[cfg(any(feature = "s3", feature = "azure", feature = "gcs"))]
    let options = options.with_retry_policy(std::sync::Arc::new(super::part_retries::PartRetries));
    options
}

/// An upload that was begun and not completed.
#[derive(Debug)]
struct GivenUpOnDrop(Option<Box<dyn MultipartUpload>>);

impl GivenUpOnDrop {
    async fn write(
        &mut self,
        parts: impl Iterator<Item = object_store::PutPayload> + Send,
        at_once: usize,
    ) -> Result<(), object_store::Error> {
        let Some(upload) = &mut self.0 else { return Ok(()) };
        let parts = parts.map(|part| upload.put_part(part));
        stream::iter(parts).buffer_unordered(at_once).try_collect::<()>().await?;
        upload.complete().await.map(drop)
    }

    /// Deletes the parts. That it fails is told by nobody: why the upload failed matters, and a lifecycle rule deletes them some day.
    async fn give_up(mut self) {
        if let Some(mut upload) = self.0.take() {
            let _ = upload.abort().await;
        }
    }
}

impl Drop for GivenUpOnDrop {
    fn drop(&mut self) {
        if let (Some(mut upload), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            drop(runtime.spawn(async move { drop(upload.abort().await) }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use futures::future::BoxFuture;
    use object_store::{PutPayload, PutResult, UploadPart};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// An upload whose parts fail, or never come to an end.
    #[derive(Debug)]
    struct Broken {
        fails: bool,
        aborted: Arc<AtomicUsize>,
    }

    impl MultipartUpload for Broken {
        fn put_part(&mut self, _: PutPayload) -> UploadPart {
            let error = || object_store::Error::Generic { store: "test", source: "as the test wants".into() };
            match self.fails {
                true => async move { Err(error()) }.boxed(),
                false => futures::future::pending().boxed(),
            }
        }

        fn complete<'a, 'b>(&'a mut self) -> BoxFuture<'b, object_store::Result<PutResult>>
        where
            'a: 'b,
            Self: 'b,
        {
            panic!("there is nothing to complete")
        }

        fn abort<'a, 'b>(&'a mut self) -> BoxFuture<'b, object_store::Result<()>>
        where
            'a: 'b,
            Self: 'b,
        {
            self.aborted.fetch_add(1, Ordering::Relaxed);
            async { Ok(()) }.boxed()
        }
    }

    fn parts() -> impl Iterator<Item = PutPayload> + Send {
        (0..3).map(|_| PutPayload::from("part"))
    }

    #[tokio::test]
    async fn an_upload_that_fails_or_is_dropped_is_given_up() {
        let aborted = Arc::new(AtomicUsize::new(0));
        let upload = |fails| GivenUpOnDrop(Some(Box::new(Broken { fails, aborted: Arc::clone(&aborted) })));
        let mut failing = upload(true);
        assert!(failing.write(parts(), 2).await.is_err());
        failing.give_up().await;
        assert_eq!(aborted.load(Ordering::Relaxed), 1);
        let mut endless = upload(false);
        assert!(endless.write(parts(), 2).now_or_never().is_none());
        drop(endless);
        // What was spawned runs when this task makes way.
        tokio::task::yield_now().await;
        assert_eq!(aborted.load(Ordering::Relaxed), 2);
    }
}
