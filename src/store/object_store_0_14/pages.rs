//! Listings page by page, so that a page that fails is asked for again, and not the whole listing.

use super::errors;
use crate::error::Result;
use crate::runtime::Timer;
use crate::store::retrying::{Retries, persist};
use futures::future::FutureExt;
use futures::stream::{self, Stream};
use object_store::ObjectMeta;
use object_store::list::{PaginatedListOptions, PaginatedListResult, PaginatedListStore};
use std::fmt;
use std::sync::Arc;

/// A store that lists in pages, each of which can be asked for by itself.
#[derive(Clone)]
pub(super) struct Pages {
    pub(super) store: Arc<dyn PaginatedListStore>,
    pub(super) timer: Arc<dyn Timer>,
}

/// What is to be asked for next.
enum Position {
    Start,
    Behind(String),
    End,
}

impl Pages {
    /// The objects whose paths begin with `prefix`. The first page is asked for once: whoever wants a listing begins it again if that fails.
    /// Later ones are tried again as `retries` say.
    pub(super) fn list(self, prefix: String, retries: Retries) -> impl Stream<Item = Result<Vec<ObjectMeta>>> {
        stream::try_unfold(Position::Start, move |position| {
            let (pages, prefix, retries) = (self.clone(), prefix.clone(), retries.clone());
            async move {
                let token = match position {
                    Position::Start => return pages.page(&prefix, None).await.map(Some),
                    Position::Behind(token) => token,
                    Position::End => return Ok(None),
                };
                // The random part of a pause keeps many apart who began together; this one is apart by how far it has come.
                let seed = token.bytes().fold(0_u64, |seed, octet| seed.rotate_left(8) ^ u64::from(octet));
                let timer = Arc::clone(&pages.timer);
                persist(&retries, &timer, seed, || pages.page(&prefix, Some(token.clone())).boxed()).await.map(Some)
            }
        })
    }

    async fn page(&self, prefix: &str, page_token: Option<String>) -> Result<(Vec<ObjectMeta>, Position)> {
        let options = PaginatedListOptions { page_token, ..PaginatedListOptions::default() };
        let below = (!prefix.is_empty()).then_some(prefix);
        let page = self.store.list_paginated(below, options).await;
        let page = page.map_err(|error| errors::told(&format!("listing '{prefix}'"), error))?;
        let PaginatedListResult { result, page_token } = page;
        Ok((result.objects, page_token.map_or(Position::End, Position::Behind)))
    }
}

impl fmt::Debug for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pages")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::testing::VirtualTime;
    use futures::TryStreamExt;
    use futures::future::BoxFuture;
    use object_store::ListResult;
    use std::collections::HashMap;
    use std::sync::Mutex;

    /// Three pages of two objects; each page fails as often as is said.
    #[derive(Debug)]
    struct Failing {
        failures: [u32; 3],
        asked: Mutex<HashMap<usize, u32>>,
    }

    impl PaginatedListStore for Failing {
        fn list_paginated<'a, 'b, 'c>(
            &'a self,
            prefix: Option<&'b str>,
            options: PaginatedListOptions,
        ) -> BoxFuture<'c, object_store::Result<PaginatedListResult>>
        where
            'a: 'c,
            'b: 'c,
            Self: 'c,
        {
            let page = options.page_token.map_or(0, |token| token.parse().unwrap());
            let mut asked = self.asked.lock().unwrap();
            let times = asked.entry(page).or_default();
            *times += 1;
            let answer = if *times <= self.failures[page] {
                Err(object_store::Error::Generic { store: "test", source: "as the test wants".into() })
            } else {
                let object = |number: usize| ObjectMeta {
                    location: format!("{}{number}", prefix.unwrap_or_default()).into(),
                    last_modified: Default::default(),
                    size: 1,
                    e_tag: None,
                    version: None,
                };
                let objects = vec![object(2 * page), object(2 * page + 1)];
                let result = ListResult { common_prefixes: Vec::new(), objects, extensions: Default::default() };
                Ok(PaginatedListResult { result, page_token: (page < 2).then(|| (page + 1).to_string()) })
            };
            futures::future::ready(answer).boxed()
        }
    }

    fn list(failures: [u32; 3]) -> Result<Vec<String>> {
        let time = VirtualTime::new();
        let store = Arc::new(Failing { failures, asked: Mutex::default() });
        let pages = Pages { store, timer: Arc::new(time.clone()) };
        let listed = pages.list("a/".into(), Retries { times: 3, ..Retries::default() });
        let listed = time.run(listed.try_collect::<Vec<_>>())?;
        Ok(listed.into_iter().flatten().map(|object| object.location.to_string()).collect())
    }

    #[test]
    fn a_page_that_fails_is_asked_for_again_and_nothing_is_listed_twice_or_left_out() {
        let all = ["a/0", "a/1", "a/2", "a/3", "a/4", "a/5"];
        for failures in [[0, 0, 0], [0, 1, 0], [0, 3, 3]] {
            assert_eq!(list(failures).unwrap(), all, "{failures:?}");
        }
    }

    #[test]
    fn a_listing_that_cannot_go_on_ends_in_an_error() {
        for failures in [[1, 0, 0], [0, 4, 0], [0, 0, 4]] {
            assert_eq!(list(failures).unwrap_err().kind(), ErrorKind::Unavailable, "{failures:?}");
        }
    }
}
