//! A high-throughput mail data transfer engine.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod digest;
pub mod error;
pub mod message;
pub mod mime;
pub mod recipe;
pub mod runtime;
pub mod sink;
pub mod source;
pub mod store;
#[cfg(any(test, feature = "testing"))]
#[cfg_attr(docsrs, doc(cfg(feature = "testing")))]
pub mod testing;
mod wire;

pub use error::{Error, ErrorKind, Result, Retry};
